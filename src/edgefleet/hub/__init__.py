"""The hub: the shell around the rollout engine.

``server`` runs the process. ``hub`` is the one object that all requests use. Devices send check-ins
to ``device_plane`` and everything else to ``api``; operators use ``api``. Only ``rollout_commands``
changes rollouts; ``loop`` evaluates the gates. ``store`` has the durable state and ``blobs`` the
artifacts; ``registry`` has the releases and ``devices`` the devices. The rules of a rollout are in
``edgefleet.rollout``.
"""
