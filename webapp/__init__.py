"""Redis Patterns Live: every classic Redis pattern as a working feature of one shop."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    import redis
    from flask import Flask

    from webapp.connection.roles import Clients
    from webapp.settings import Settings
    from webapp.shop.catalog import Catalog

_LARGEST_BODY = 64 * 1024
_MOST_FORM_PARTS = 50
_SPARE_CONNECTIONS = 8
_WARM_CONNECTIONS = 4

log = logging.getLogger(__name__)


def create_app(settings: "Settings", *, clients: "Clients | None" = None) -> "Flask":
    """Join the parts; the only place where they meet.

    `clients` are made from the settings' URLs unless they are given.
    """
    # Imported here, so that who lifts webapp.patterns does not get Flask with it.
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from webapp import paths
    from webapp.connection.roles import connect
    from webapp.connection.scratch import Wishes
    from webapp.http import (
        admin_access,
        delivery,
        errors,
        events,
        guard,
        holders,
        jinja,
        limiter,
        metrics,
        shell,
        visits,
    )
    from webapp.http.flow import Flow
    from webapp.http.session import Sessions
    from webapp.live import sockets
    from webapp.live.feed import Feed
    from webapp.live.five import Five
    from webapp.live.hub import Hub
    from webapp.live.watch import Watch
    from webapp.rooms import PAGES
    from webapp.shop.accounts import Accounts
    from webapp.shop.activity import Activity
    from webapp.shop.catalog import Catalog
    from webapp.shop.database import open_database
    from webapp.shop.nightly import Nightly
    from webapp.shop.orders import Orders
    from webapp.shop.scores import Scores
    from webapp.shop.visits import Visits
    from webapp.views import (
        activity,
        admin,
        api,
        atomicity,
        catalog,
        feed,
        five,
        leaderboard,
        leaderboard_api,
        locks,
        ops,
        orders_api,
        overview,
        rate_limits,
        reference,
        session_api,
        sessions,
        streams,
        throttled,
        topology,
        visitors,
        visitors_api,
    )

    app = Flask(
        __name__,
        template_folder=str(paths.TEMPLATES),
        static_folder=str(paths.STATIC),
        instance_path=str(settings.instance_path),
    )
    app.config.update(
        SECRET_KEY=settings.secret_key,
        MAX_CONTENT_LENGTH=_LARGEST_BODY,
        MAX_FORM_MEMORY_SIZE=_LARGEST_BODY,
        MAX_FORM_PARTS=_MOST_FORM_PARTS,
        TRUSTED_HOSTS=list(settings.trusted_hosts) or None,
    )
    clients = clients or connect(
        settings.redis_urls,
        max_connections=settings.threads + _SPARE_CONNECTIONS,
        on_trip=metrics.observe_trip,
    )
    shop = Catalog(open_database(settings.database_url), clients, settings.namespace)
    orders = Orders(clients.durable, settings.namespace)
    flow = Flow(settings, orders)
    nightly = Nightly(clients.durable, shop.engine, settings.namespace)
    live = app.jinja_env.get_template  # outside any request: no context processors

    def stale(topic: str, at: "datetime | None") -> str:
        return live("_stale.html").render(topic=topic, at=at, stale=True)

    hub = Hub(
        settings,
        render=lambda now: live("_live.html").render(vitals=now, pages=PAGES),
        feed=Feed(
            settings, render=lambda rows: live("feed/_rows.html").render(entries=rows)
        ),
        watches=[
            Watch(
                "streams",
                look=lambda: live("streams/_frame.html").render(flow.frame()),
                stale=stale,
            ),
            Watch(
                "locks",
                look=lambda: live("locks/_lanes.html").render(
                    picture=holders.picture(nightly.journal()), oob=True
                ),
                stale=stale,
            ),
        ],
    )
    app.extensions.update(settings=settings, clients=clients, catalog=shop, hub=hub)
    app.extensions.update(orders=orders, flow=flow)
    app.extensions["scores"] = Scores(clients.durable, settings.namespace)
    app.extensions["visits"] = Visits(
        clients.durable, clients.cache, settings.namespace
    )
    app.extensions["activity"] = Activity(
        clients.durable, shop.engine, settings.namespace
    )
    app.extensions["accounts"] = Accounts(clients.durable, settings.namespace)
    app.extensions["five"] = Five(
        Wishes(settings.instance_path, settings.sockets),
        settings.namespace,
        demo=settings.demo,
    )
    app.extensions["nightly"] = nightly

    app.session_interface = Sessions(clients.durable, settings.namespace)
    errors.init_app(app)
    admin_access.init_app(app)
    guard.init_app(app)
    jinja.init_app(app)
    delivery.init_app(app, settings)
    limiter.init_app(
        app,
        clients.durable,
        namespace=settings.namespace,
        workers=settings.workers,
    )
    visits.init_app(app)
    events.init_app(app, clients.durable, settings.namespace)
    shell.init_app(app, settings, clients)
    sockets.init_app(app, hub)
    patterns = catalog, sessions, rate_limits, locks, feed, streams, leaderboard
    more = five, visitors, activity, atomicity, topology, reference, admin, ops
    interface = api, session_api, throttled, leaderboard_api, visitors_api, orders_api
    for view in (overview, *patterns, *more, *interface):
        app.register_blueprint(view.bp)
    if settings.trusted_proxies:
        n = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, n, n, n)  # type: ignore[method-assign]
    _catch_up(clients, shop)
    return app


def _catch_up(clients: "Clients", shop: "Catalog") -> None:
    """Make good what Redis missed, now and each time it comes back."""
    from redis.exceptions import RedisError

    from webapp import scripts
    from webapp.connection.roles import warm

    def catch_up(client: "redis.Redis") -> None:
        scripts.preload(client)
        shop.replay_outbox(client)

    clients.breakers["cache"].before_close.append(catch_up)
    clients.breakers["durable"].before_close.append(scripts.preload)
    try:
        catch_up(clients.cache)
        scripts.preload(clients.durable)
        for _, client in clients.items():
            warm(client, connections=_WARM_CONNECTIONS)
    except RedisError as error:
        log.warning("Redis does not answer at the start: %s", error)
