"""The hub: the shell around the rollout engine.

``server`` runs the process, and ``hub`` is the one object behind all of it. Devices come in through
``device_plane`` (check-ins) and ``api`` (the rest), operators through ``api``. ``steering`` alone
changes rollouts, and ``loop`` lets the gates judge. ``store`` keeps what must last, ``blobs`` the
artifacts; ``registry`` and ``devices`` know the releases and the devices. No rule of a rollout
stands here: those are in ``edgefleet.rollout``.
"""
