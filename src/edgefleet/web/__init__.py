"""The page: server-rendered, live without reload, and every address has a ``.json`` twin.

``routes.routes_for(hub)`` gives the routes; ``pages.py`` says what stands on each page,
``live.py`` how an open one stays true, ``charts.py`` and ``timeline.py`` draw.
"""
