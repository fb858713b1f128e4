"""Text that tries to become a part of the page: 500 payloads, and where it is planted.

Each payload makes an element or an attribute called `xss`, or calls a function of that
name, wherever it is not shown as the text that it is.
"""

import json
import sqlite3
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import redis

from webapp.live.feed import PATTERN, Event, encode, stream

_WAYS_OUT = [
    "", '">', "'>", "`>", ">", "-->", "]]>", "</title>", "</textarea>", "</script>",
    "</style></svg>", "</option></select>", "</template></noscript>", "\\\">", "\x00>",
    "&quot;&gt;", "%22%3E", "\u2028'>", "\ufeff\">", "{{'",
]  # fmt: skip
_THEN = [
    "<img xss src=x onerror=xss()>",
    "<script xss>xss()</script>",
    "<svg/xss/onload=xss()>",
    "<svg><script xss>xss()</script></svg>",
    "<ScRiPt xss>xss()</sCrIpT>",
    "<a xss href=javascript:xss()>x</a>",
    "<a xss href='java\tscript:xss()'>x</a>",
    "<iframe xss srcdoc='<script>parent.xss()</script>'></iframe>",
    "<details xss open ontoggle=xss()>x</details>",
    "<input xss autofocus onfocus=xss()>",
    "<button xss formaction=javascript:xss()>x</button>",
    "<form xss action=javascript:xss()><input>",
    "<object xss data=javascript:xss()></object>",
    "<math><mi xss xlink:href=javascript:xss()>x</mi></math>",
    "<video xss><source onerror=xss()></video>",
    "<style xss>*{background:url(javascript:xss())}</style>",
    "<link xss rel=stylesheet href=//evil.example>",
    "<base xss href=//evil.example/>",
    "<meta xss http-equiv=refresh content='0;url=javascript:xss()'>",
    "<div xss hx-get=/ hx-trigger=load hx-on:load=xss()>x</div>",
    "<img xss src=x onerror=&#x78;ss()>",
    "<xss id=x tabindex=1 onfocus=xss()>x</xss>",
    "<<img xss src=x onerror=xss()>",
    '" xss onmouseover=xss() x="',
    "' xss onfocus=xss() autofocus x='",
]
PAYLOADS = [out + then for then in _THEN for out in _WAYS_OUT]
FEW = [PAYLOADS[n * 63] for n in range(8)]  # some of the ways out, and of what then


class Found(HTMLParser):
    """What of a page is no element or attribute of ours; `shown`: texts with xss."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.shown = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "xss" in tag:
            self.wrong.append(tag)
        for name, value in attrs:
            target = "".join((value or "").split()).lower()
            is_code = target.startswith(("javascript:", "data:", "vbscript:"))
            is_link = name in ("href", "src", "action", "formaction", "xlink:href")
            if "xss" in name or name.startswith("on") or (is_link and is_code):
                self.wrong.append(f"{tag} {name}={value}")
            self.shown += "xss" in (value or "")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem and "xss" in data:
            self.wrong.append(f"<{self.cdata_elem}> {data[:80]}")
        self.shown += "xss" in data


def plant(client: redis.Redis, week: str, texts: Sequence[str]) -> None:
    """As a bug elsewhere would leave them in Redis: past every check."""
    pipeline = client.pipeline(transaction=False)
    for n, text in enumerate(texts):
        pipeline.zadd(week, {text: n + 1})
        pipeline.set(f"rpl:catalog:product:{{{text}}}", text, px=600_000)
        pipeline.set(f"rpl:{text}", text, px=600_000)
        entry = dict.fromkeys(("who", "action", "target", "before", "after"), text)
        pipeline.xadd("rpl:admin:audit:{log}", entry)  # type: ignore[arg-type]
        pipeline.hset(f"rpl:rate-limits:tally:{{{n}}}:fixed-window", text, 1)
    pipeline.execute()
    for text in texts:
        event = encode(Event(kind="message", text=text))
        PATTERN.publish(client, stream("rpl"), payload=event)


def plant_session(client: redis.Redis, text: str) -> None:
    """The name and the device of whoever is signed in."""
    for key in client.scan_iter("rpl:sessions:session:*"):
        client.hset(key, mapping=dict.fromkeys(("name", "device"), json.dumps(text)))


def plant_names(shop: Path, texts: Sequence[str]) -> None:
    """Names of products, from the first that the catalog shows, and of categories."""
    with sqlite3.connect(shop) as own:
        for table in ("product", "category"):
            ids = own.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()
            named = [(texts[n % len(texts)], id) for n, (id,) in enumerate(ids[:600])]
            own.executemany(f"UPDATE {table} SET name = ? WHERE id = ?", named)
