"""The page: server-rendered, live without reload, and every address has a ``.json`` twin.

``routes.routes_for(hub)`` returns the routes. ``pages.py`` defines the content of each page,
``live.py`` keeps an open page current, ``charts.py`` and ``timeline.py`` draw.
"""
