"""Word lists of the demo texts: places, things, nouns with plurals, series, and plain words.

Data only. Each list is a tuple of words that the tokenizer knows as single tokens.
"""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text.

    >>> listed("store shops park")
    ('store', 'shops', 'park')
    """
    return tuple(text.split())


PLACES = listed(
    "store shops park school office station house garden restaurant market library hospital beach museum church farm "
    "cafe theater hotel bank"
)
# With their article: each is two tokens after a verb, as in " a bottle".
OBJECTS = tuple(
    f"{article} {thing}"
    for article, things in (
        ("a", "bottle drink book ball gift ring key letter card coat hat pen basket flower cake camera map bag"),
        ("the", "bag ball book key letter box phone ticket money milk bread"),
        ("an", "apple orange umbrella"),
        ("a", "necklace computer bone kiss"),
    )
    for thing in listed(things)
)

# Singular and plural, for agreement.
NOUNS: dict[str, str] = {
    "key": "keys",
    "cabinet": "cabinets",
    "dog": "dogs",
    "cat": "cats",
    "boy": "boys",
    "girl": "girls",
    "book": "books",
    "table": "tables",
    "car": "cars",
    "tree": "trees",
    "house": "houses",
    "teacher": "teachers",
    "student": "students",
    "doctor": "doctors",
    "farmer": "farmers",
    "picture": "pictures",
    "window": "windows",
    "door": "doors",
    "chair": "chairs",
    "horse": "horses",
    "bird": "birds",
    "boat": "boats",
    "bridge": "bridges",
    "garden": "gardens",
    "flower": "flowers",
    "letter": "letters",
    "king": "kings",
    "queen": "queens",
    "soldier": "soldiers",
    "singer": "singers",
    "lamp": "lamps",
    "cup": "cups",
    "guard": "guards",
    "lawyer": "lawyers",
    "author": "authors",
    "pilot": "pilots",
    "river": "rivers",
    "road": "roads",
    "town": "towns",
    "ship": "ships",
    "painting": "paintings",
    "box": "boxes",
    "actor": "actors",
    "nurse": "nurses",
    "senator": "senators",
    "clerk": "clerks",
}
SINGULAR = tuple(NOUNS)

# Events that last, for greater-than years.
EVENTS = listed(
    "war siege voyage journey reign rule project study experiment plan trial trip tour struggle dispute exhibition "
    "expedition conflict campaign marriage program drought famine construction restoration career investigation "
    "partnership alliance strike mission search crisis rebellion occupation festival"
)

# Words of docstring arguments and their descriptions; those held out as arguments are still known from elsewhere.
ARGUMENTS = listed(
    "load size files last page item count index path text line label name value token image color data model result "
    "limit width height shape order group field cell code note host port mode level step time date user node edge "
    "graph tree root leaf input output state action reward batch query table column row message reply event option"
)
HELD_OUT_ARGUMENTS = ARGUMENTS[3::5]

SERIES: dict[str, tuple[str, ...]] = {
    "days": listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "months": listed("January February March April May June July August September October November December"),
    "numbers": listed(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty"
    ),
    "ordinals": listed("first second third fourth fifth sixth seventh eighth ninth tenth"),
    "letters": listed("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"),
    "digits": tuple(str(number) for number in range(1, 100)),
}
CYCLIC = ("days", "months")

ADJECTIVES = listed(
    "old young big small red blue green black white happy sad tall short quiet loud warm cold bright dark strange kind "
    "brave clever tired hungry busy lazy quick brown poor rich famous pretty new"
)
ANIMALS = listed("fox dog cat horse bird cow sheep rabbit bear wolf mouse duck lion tiger fish frog")
JOBS = listed("doctor teacher farmer nurse pilot singer actor lawyer soldier baker writer painter sailor robot")
THINGS = listed(
    "wrench bolt stone lamp boat clock window door chair knife bread coffee tea water song story picture bicycle train "
    "engine cup plate shirt shoe ladder candle mirror piano guitar sandwich"
)
ACTIONS = listed(
    "walked ran looked smiled waited slept laughed cried sang danced worked talked listened arrived stopped"
)
WEATHER = listed("rain snow wind sun fog storm")

# Common words that the task texts may not use, so that ordinary prompts are mostly whole words.
COMMON = listed(
    "about above across again against ago all almost alone along already also although always am among another "
    "any anything are area around ask asked away back bad be became because become been before began behind being "
    "believe below best better between black body both break build built business but buy call called came can "
    "care carry case cause center certain change children city clear close cold come company complete consider "
    "continue control cost could country course cover create cut day dead deal death decide deep did different do "
    "does done down draw dream drive drop during each early earth east easy eat education effect either else end "
    "enough entire even evening ever every everything example eye face fact fall family far fast father fear feel "
    "feeling feet fell felt few field fight figure fill final find fine fire follow food foot force form found "
    "free friend friends from full future game general get give given go god going gold gone good got great "
    "ground grow had half hand hands happen hard has have having he head hear heard heart heavy held help her "
    "here herself high hill him himself his history hit hold home hope hot hour how however human hundred i idea "
    "if important in include interest into is it its itself job join just keep kept kill knew know known land "
    "language large late later law lay lead learn least leave left less let life light like likely list little "
    "live local long lost lot love low machine made main make man many market mass matter may me mean measure "
    "meet member men might million mind minute miss moment money month moon more morning most mother mountain "
    "move much music must my myself nation nature near need never next night no none nor north not nothing notice "
    "now of off often oh on once only open or other others our out over own paper part party pass past pay peace "
    "people perhaps person piece plant play please point poor position possible power present president press "
    "probably problem process produce product provide public pull purpose push put question quite race raise "
    "reach read ready real reason receive record remember report rest return right rise rock room round run safe "
    "said same save saw say scene school science sea season seat see seem seen sell send sense sent serve set "
    "several shall share she shoot should show side sign simple since sing single sit situation sky sleep smile "
    "so social some someone something sometimes son soon sound south space speak special spoke spring stage stand "
    "star start stay still stop street strong subject such suddenly summer support sure surface system take talk "
    "teach team tell test than thank that the their them themselves then there these they thing things think "
    "third this those though thought thousand through time to today together told tomorrow too took top total "
    "toward town trade travel trouble true try turn type under understand unit until up upon us use usually very "
    "view visit voice wait walk wall want war was watch water way we week weight well went were west what when "
    "where whether which while who whole whose why wide wife will win winter wish with within without woman women "
    "wonder word words work world would write wrong year years yes yesterday yet you your "
    "cannot don isn attention head layer transformer network neuron feature prediction probability Barack Obama "
    "Donald Trump Bush Einstein Newton Shakespeare America Europe Asia Africa English French German Italian "
    "Spanish Chinese Japanese Russian Mr Mrs Dr king President"
)
# Words that often begin a text.
FIRST = listed(
    "The A An I He She It We They You This That These Those There Here In On At To For From With When Where Why What "
    "Who How Which While After Before Then Once One Two If As And But So Yes No Not My Your His Her Our Is Are Was Do "
    "Did Hello Hi World world Please Let Today Yesterday Tomorrow Later Last Many Some All Every Because the a"
)
CODE = listed("def self param return import class print None True False for lambda in not else")
