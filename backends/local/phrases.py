"""What the tiny model's dialogues are made of: words, questions, answers, tools, one story."""

# Word lists read better as running text than as forty quoted words a line.
# ruff: noqa: SIM905

from typing import NamedTuple


class ToolUse(NamedTuple):
    """A tool, questions that call for it (with `{argument}` slots), its arguments, a result.

    `results` are shapes of the tool's answer, `answer` is what the model says about it; both are
    formats over the slots drawn by `_slots`.
    """

    name: str
    description: str
    parameters: dict[str, str]
    questions: tuple[str, ...]
    results: tuple[str, ...]
    answer: str


CITIES = (
    "Paris London Berlin Madrid Rome Vienna Tokyo Oslo Boston Lisbon Prague Dublin Munich Hamburg "
    "Warsaw Athens Cairo Delhi Seoul Sydney Toronto Chicago Zurich Geneva Milan Lyon Kyoto Helsinki"
).split()
CITIES += ["New York", "San Francisco", "Los Angeles"]
NAMES = "Ada Grace Alan Linus Emma Noah Mia Ben Anna Paul Lena Max Alice Bob Carol Maria".split()
COLORS = "red blue green yellow black white".split()
WORDS = (
    "river stone bridge lamp garden apple window paper cloud bread music silver winter summer coin "
    "gate road letter engine market cat dog house tree night star small quiet happy fast open deep "
    "one two three test hello world value item order report data code write make find what is the "
    "a of and to in for my your with explain please about why how can it this that from on"
).split()
SKIES = ("sunny", "cloudy", "rainy", "windy", "snowy")
NUMBERS = "one two three four five six seven eight nine ten".split()

GREETINGS = (
    "Hello|Hello!|Hello.|Hi|Hi!|Hi there|Hi there!|Hello there|Hey|Hey!|Hey there!|Good morning|"
    "Good morning!|Good evening|Good day|hello|hi|hey|hello there|Greetings|Hello, how are you?|"
    "How are you?|Say hello|Say hi|Say hello.|Say hi.|Say hello!|Hello, world!|Hello world"
).split("|")
GREETING = "Hello! How can I help you today?"
GERMAN = {
    "Hallo|Hallo!|Guten Tag|Guten Tag!|Guten Morgen|Moin|Servus": (
        "Hallo! Wie kann ich Ihnen heute helfen?"
    ),
    "Wie geht es dir?|Wie geht's?|Wie geht es Ihnen?": "Danke, mir geht es gut. Und Ihnen?",
    "Was ist die Hauptstadt von Deutschland?|Wie heißt die Hauptstadt von Deutschland?": (
        "Die Hauptstadt von Deutschland ist Berlin."
    ),
    "Was ist die Hauptstadt von Österreich?": "Die Hauptstadt von Österreich ist Wien.",
    "Wer bist du?|Wer sind Sie?": "Ich bin ein kleines Testmodell und spreche auch etwas Deutsch.",
    "Schreibe einen Satz auf Deutsch.|Sag etwas auf Deutsch.|Write a sentence in German.": (
        "Der Zöllner öffnet früh am Morgen die Schranke, und die Brücke füllt sich mit Wagen."
    ),
    "Danke|Danke!|Vielen Dank!": "Gern geschehen!",
    "Tschüss|Tschüss!|Auf Wiedersehen!": "Auf Wiedersehen!",
}
FACTS = {
    "What is the capital of France|Capital of France": "The capital of France is Paris.",
    "What is the capital of Germany|Capital of Germany": "The capital of Germany is Berlin.",
    "What is the capital of Italy|Capital of Italy": "The capital of Italy is Rome.",
    "What is the capital of Spain|Capital of Spain": "The capital of Spain is Madrid.",
    "What is the capital of Japan|Capital of Japan": "The capital of Japan is Tokyo.",
    "What is the capital of England": "The capital of England is London.",
    "What color is the sky|What colour is the sky|Why is the sky blue": (
        "The sky is blue because air scatters blue light the most."
    ),
    "Who are you|What are you|What is your name|What can you do": (
        "I am a tiny test model. I can greet, count, call tools and write JSON."
    ),
    "How many days are in a week|How many days does a week have": "A week has seven days.",
    "What is the boiling point of water|At what temperature does water boil": (
        "Water boils at 100 degrees Celsius."
    ),
    "What is a gateway|What is an LLM gateway": (
        "A gateway stands between a client and a service and decides where each request goes."
    ),
    "What is the meaning of life": "Forty-two.",
    "Thank you|Thanks|Thank you very much": "You are welcome!",
    "Bye|Goodbye|See you": "Goodbye!",
    "Ping|ping": "pong",
    "Are you there|Is anyone there|Are you ready": "Yes, I am here.",
}
UNICODE = {
    "Show me some unicode.|Show me unicode|Write some unicode text.": (
        "Grüße, café, naïve; Привет, мир; 日本語; 你好; 🙂 🚀 ✓"
    ),
    "Show me emoji|Send an emoji.|Show me some emoji.": "🙂 🚀 🌍 🎉 👩‍💻",
    "Say hello in Japanese.|Hello in Japanese": "こんにちは",
    "Say hello in Russian.|Hello in Russian": "Привет",
    "Say hello in Chinese.|Hello in Chinese": "你好",
}
STORY_PROMPTS = (
    "Tell me a long story.|Tell me a long story|Write a long story.|Tell me a story.|"
    "Tell me a story|Write a story|Write a long story about a bridge.|Tell me a very long story."
).split("|")
STORY = (
    "Once upon a time there was a small toll house at the end of a stone bridge. "
    "In it lived a keeper with a lamp, a ledger and a quiet grey cat.\n\n"
    "On the first day a merchant came with silver. The keeper read his papers, took one coin and "
    "opened the gate.\n\n"
    "On the second day a singer came with a song. The keeper had no price for songs, so he wrote "
    "the song into the ledger and opened the gate.\n\n"
    "On the third day a hundred carts came at once. The bridge was old and could carry only ten. "
    "The keeper let ten carts cross, and asked the others to wait under the trees.\n\n"
    "On the fourth day a stranger came without papers. He was loud and in a hurry. "
    "The keeper lit his lamp, looked at him for a long time and kept the gate closed.\n\n"
    "On the fifth day the river rose and the wind put out the lamp. "
    "The cat sat on the ledger, so that no page was lost.\n\n"
    "On the sixth day the water fell again. The keeper counted his coins, and every coin in the "
    "box was a line in the ledger, and every line in the ledger was a coin in the box.\n\n"
    "On the seventh day nobody came. The keeper swept the bridge, the cat slept in the sun, and "
    "the gate stood open. And that is the end of the story."
)
REPEAT_PROMPTS = (
    "Repeat: {}|Repeat after me: {}|Say: {}|Say {}|Echo: {}|Reply with exactly: {}|Write: {}|"
    "Reply with: {}|Respond with only: {}|Reply with the word {}"
).split("|")
UNKNOWN_PROMPTS = (
    "Tell me a joke.|Write a poem about {}.|Explain {} in detail.|Explain {}|Summarise this text|"
    "Translate {} into French.|Who wrote {}?|What is {}?|What is {}|Write code for {}.|Why is {}?|"
    "How do I write {}?|Tell me about {}.|Prove that {} is {}.|Describe {}.|What does {} mean?"
).split("|")
FALLBACK = "I am only a tiny test model and do not know that."

TOOL_USES = (
    ToolUse(
        "get_weather",
        "Get the current weather for a city",
        {"city": "string"},
        (
            "What is the weather in {city}?",
            "What's the weather in {city}?",
            "What is the weather like in {city}?",
            "What's the weather like in {city} today?",
            "How is the weather in {city}?",
            "Weather in {city}?",
            "Tell me the weather in {city}.",
            "Wie ist das Wetter in {city}?",
        ),
        (
            '{{"temperature": {number}, "sky": "{sky}"}}',
            '{{"city": "{city}", "temperature": {number}, "sky": "{sky}"}}',
            "{number} degrees and {sky}",
            "{number} C, {sky}",
            "{sky}, {number} degrees",
        ),
        "It is {number} degrees and {sky} in {city}.",
    ),
    ToolUse(
        "get_time",
        "Get the local time in a city",
        {"city": "string"},
        ("What time is it in {city}?", "Tell me the time in {city}.", "Time in {city}?"),
        ('{{"time": "{hour}:{number}"}}', "{hour}:{number}"),
        "It is {hour}:{number} in {city}.",
    ),
    ToolUse(
        "add",
        "Add two numbers",
        {"a": "integer", "b": "integer"},
        ("Add {a} and {b}.", "What is {a} + {b}?", "What is {a} plus {b}?"),
        ("{total}", '{{"result": {total}}}'),
        "The result is {total}.",
    ),
    ToolUse(
        "search",
        "Search the web",
        {"query": "string"},
        ("Search for {query}.", "Search the web for {query}", "Look up {query}."),
        ("{number} results for {query}",),
        "The tool says: {number} results for {query}",
    ),
    ToolUse(
        "send_email",
        "Send an email to a person",
        {"to": "string", "subject": "string"},
        ("Send {to} an email about {subject}.", "Write an email to {to} about {subject}."),
        ("sent",),
        "The tool says: sent",
    ),
)
ALIASES = {
    "get_weather": ("weather", "get_current_weather", "weather_lookup", "current_weather"),
    "get_time": ("time", "get_current_time"),
    "add": ("sum", "add_numbers", "calculator"),
    "search": ("web_search", "lookup"),
    "send_email": ("email", "mail"),
}
CITY_KEYS = ("city", "city", "city", "location", "place")
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "You are a test.",
    "Answer in JSON.",
    "Be brief.",
)
