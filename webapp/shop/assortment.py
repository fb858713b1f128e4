"""What the shop sells: twelve categories, and the words their products' names are
made of. `seed.py` makes the products from it.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """Products that differ in make and option: "Enamel kettle, 1.7 l"."""

    noun: str
    euros: tuple[int, int]  # cheapest and dearest
    makes: str  # separated by commas, as the options are
    options: str


class Featured(NamedTuple):
    name: str
    price_cents: int
    stock: int


class Category(NamedTuple):
    slug: str
    name: str
    featured: Featured
    kinds: tuple[Kind, ...]


_METALS = "Steel,Brass,Copper,Enamel,Iron,Aluminium,Pewter,Chrome"
_WOODS = "Oak,Beech,Walnut,Ash,Pine,Birch,Teak,Cherry,Bamboo"
_CLAYS = "Stoneware,Porcelain,Earthenware,Terracotta,Bone china,Glazed,Speckled,Raku"
_CLOTHS = "Linen,Cotton,Wool,Velvet,Jute,Hemp,Waffle,Organic cotton"
_COLOURS = "white,black,cream,sage,navy,rust,mustard,grey,sky blue"
_LITRES = "0.5 l,0.8 l,1 l,1.2 l,1.7 l,2 l,3 l,4.5 l"
_WIDTHS = "16 cm,18 cm,20 cm,24 cm,26 cm,28 cm,30 cm,32 cm"
_SIZES = "small,medium,large,extra large,set of two,set of four,set of six,single"
_LENGTHS = "80 cm,100 cm,120 cm,140 cm,160 cm,180 cm,200 cm,220 cm"
_PAPERS = "Ruled,Dotted,Squared,Plain,Recycled,Kraft,Cotton paper,Watercolour"

CATEGORIES = (
    Category(
        "kitchen",
        "Kitchen",
        Featured("Enamel kettle, 1.7 l", 4850, 23),
        (
            Kind("kettle", (29, 89), _METALS, _LITRES),
            Kind("saucepan", (25, 119), _METALS, _LITRES),
            Kind("frying pan", (22, 99), _METALS, _WIDTHS),
            Kind("chopping board", (14, 59), _WOODS, _WIDTHS),
            Kind("mixing bowl", (9, 39), _CLAYS, _LITRES),
            Kind("storage jar", (7, 29), _CLAYS, _LITRES),
            Kind("ladle", (6, 24), _METALS, _COLOURS),
            Kind("spatula", (5, 19), _WOODS, _WIDTHS),
        ),
    ),
    Category(
        "tableware",
        "Tableware",
        Featured("Stoneware mug", 1400, 120),
        (
            Kind("mug", (8, 24), _CLAYS, _COLOURS),
            Kind("dinner plate", (9, 34), _CLAYS, _COLOURS),
            Kind("soup bowl", (8, 29), _CLAYS, _COLOURS),
            Kind("teapot", (24, 79), _CLAYS, _COLOURS),
            Kind("serving tray", (18, 69), _WOODS, _WIDTHS),
            Kind("cutlery", (12, 89), _METALS, _SIZES),
            Kind("egg cup", (4, 14), _CLAYS, _COLOURS),
            Kind("coaster", (3, 12), _WOODS, _SIZES),
        ),
    ),
    Category(
        "lighting",
        "Lighting",
        Featured("Desk lamp, brass", 12900, 14),
        (
            Kind("desk lamp", (39, 179), _METALS, _COLOURS),
            Kind("floor lamp", (69, 289), _METALS, _COLOURS),
            Kind("pendant", (49, 229), _METALS, _WIDTHS),
            Kind("wall light", (29, 139), _METALS, _COLOURS),
            Kind("table lamp", (35, 149), _CLAYS, _COLOURS),
            Kind("lampshade", (15, 69), _CLOTHS, _WIDTHS),
            Kind("lantern", (12, 59), _METALS, _SIZES),
            Kind("candle holder", (6, 34), _CLAYS, _SIZES),
        ),
    ),
    Category(
        "decor",
        "Decor",
        Featured("Wall clock", 6200, 31),
        (
            Kind("wall clock", (29, 99), _METALS, _WIDTHS),
            Kind("mirror", (35, 189), _WOODS, _WIDTHS),
            Kind("vase", (12, 79), _CLAYS, _COLOURS),
            Kind("picture frame", (8, 49), _WOODS, _WIDTHS),
            Kind("bookend", (14, 49), _METALS, _COLOURS),
            Kind("candle", (6, 29), "Beeswax,Soy,Rapeseed,Pillar,Taper", _COLOURS),
            Kind("wall hook", (4, 19), _METALS, _SIZES),
            Kind("bowl", (10, 59), _WOODS, _WIDTHS),
        ),
    ),
    Category(
        "furniture",
        "Furniture",
        Featured("Oak stool", 9500, 18),
        (
            Kind("stool", (59, 149), _WOODS, _COLOURS),
            Kind("chair", (89, 289), _WOODS, _COLOURS),
            Kind("dining table", (249, 1290), _WOODS, _LENGTHS),
            Kind("bench", (119, 389), _WOODS, _LENGTHS),
            Kind("shelf", (39, 189), _WOODS, _LENGTHS),
            Kind("side table", (69, 219), _METALS, _COLOURS),
            Kind("bed frame", (289, 990), _WOODS, _LENGTHS),
            Kind("coat rack", (35, 149), _METALS, _COLOURS),
        ),
    ),
    Category(
        "textiles",
        "Textiles",
        Featured("Linen tea towel, set of two", 1900, 86),
        (
            Kind("tea towel", (6, 24), _CLOTHS, _COLOURS),
            Kind("cushion", (15, 59), _CLOTHS, _COLOURS),
            Kind("throw", (29, 129), _CLOTHS, _COLOURS),
            Kind("tablecloth", (25, 99), _CLOTHS, _LENGTHS),
            Kind("rug", (49, 389), _CLOTHS, _LENGTHS),
            Kind("curtain", (29, 149), _CLOTHS, _COLOURS),
            Kind("pillowcase", (9, 39), _CLOTHS, _COLOURS),
            Kind("napkin", (4, 19), _CLOTHS, _SIZES),
        ),
    ),
    Category(
        "bathroom",
        "Bathroom",
        Featured("Waffle bath towel, cream", 2950, 54),
        (
            Kind("bath towel", (15, 59), _CLOTHS, _COLOURS),
            Kind("hand towel", (7, 29), _CLOTHS, _COLOURS),
            Kind("bath mat", (14, 59), _CLOTHS, _COLOURS),
            Kind("soap dish", (6, 29), _CLAYS, _COLOURS),
            Kind("toothbrush holder", (7, 29), _CLAYS, _COLOURS),
            Kind("towel rail", (19, 89), _METALS, _LENGTHS),
            Kind("bath rack", (19, 79), _WOODS, _SIZES),
            Kind("waste bin", (15, 59), _METALS, _LITRES),
        ),
    ),
    Category(
        "garden",
        "Garden",
        Featured("Copper watering can, 2 l", 5400, 12),
        (
            Kind("watering can", (15, 69), _METALS, _LITRES),
            Kind("plant pot", (6, 59), _CLAYS, _WIDTHS),
            Kind("planter", (19, 119), _WOODS, _LENGTHS),
            Kind("bird house", (14, 59), _WOODS, _COLOURS),
            Kind("hand trowel", (8, 34), _METALS, _COLOURS),
            Kind("garden bench", (119, 489), _WOODS, _LENGTHS),
            Kind("bucket", (9, 39), _METALS, _LITRES),
            Kind("rake", (15, 49), _WOODS, _LENGTHS),
        ),
    ),
    Category(
        "office",
        "Office",
        Featured("Dotted notebook, navy", 1250, 140),
        (
            Kind("notebook", (5, 24), _PAPERS, _COLOURS),
            Kind("sketchbook", (7, 34), _PAPERS, _SIZES),
            Kind("pen", (3, 89), _METALS, _COLOURS),
            Kind("desk organiser", (15, 69), _WOODS, _COLOURS),
            Kind("ruler", (4, 19), _METALS, _WIDTHS),
            Kind("letter tray", (14, 59), _WOODS, _SIZES),
            Kind("paper bin", (15, 59), _METALS, _LITRES),
            Kind("monitor stand", (29, 119), _WOODS, _COLOURS),
        ),
    ),
    Category(
        "storage",
        "Storage",
        Featured("Seagrass basket, large", 3400, 37),
        (
            Kind("basket", (12, 69), "Seagrass,Willow,Rattan,Jute,Wire,Felt", _SIZES),
            Kind("box", (9, 59), _WOODS, _SIZES),
            Kind("crate", (12, 49), _WOODS, _COLOURS),
            Kind("tin", (5, 24), _METALS, _COLOURS),
            Kind("laundry bag", (14, 49), _CLOTHS, _COLOURS),
            Kind("peg rail", (19, 79), _WOODS, _LENGTHS),
            Kind("trunk", (69, 249), _METALS, _COLOURS),
            Kind("shoe rack", (29, 119), _WOODS, _LENGTHS),
        ),
    ),
    Category(
        "toys",
        "Toys",
        Featured("Beech building blocks, set of six", 2600, 45),
        (
            Kind("building blocks", (15, 69), _WOODS, _SIZES),
            Kind("pull-along duck", (12, 39), _WOODS, _COLOURS),
            Kind("toy train", (15, 79), _WOODS, _COLOURS),
            Kind("spinning top", (4, 19), _WOODS, _COLOURS),
            Kind("rag doll", (15, 49), _CLOTHS, _COLOURS),
            Kind("toy bear", (12, 59), _CLOTHS, _SIZES),
            Kind("skittles", (14, 49), _WOODS, _COLOURS),
            Kind("whistle", (3, 14), _METALS, _COLOURS),
        ),
    ),
    Category(
        "outdoor",
        "Outdoor",
        Featured("Steel flask, 1 l", 3950, 62),
        (
            Kind("flask", (15, 59), _METALS, _LITRES),
            Kind("camping cup", (6, 29), _METALS, _COLOURS),
            Kind("picnic blanket", (25, 99), _CLOTHS, _COLOURS),
            Kind("backpack", (39, 189), _CLOTHS, _COLOURS),
            Kind("lunch box", (9, 39), _METALS, _SIZES),
            Kind("hammock", (35, 149), _CLOTHS, _COLOURS),
            Kind("camping stool", (19, 89), _WOODS, _COLOURS),
            Kind("hiking stick", (12, 69), _WOODS, _LENGTHS),
        ),
    ),
)
