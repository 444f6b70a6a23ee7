"""Made-up personal data: names, places, addresses, numbers in the forms of many countries.

The parts are common given names, family names, cities and the like; whatever comes out belongs
to nobody in particular. Numbers have the form of the real ones and no valid check digits are
sought: the patterns look after those.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Sequence

from routers.train.abroad import cyrillic
from routers.train.names import CITIZENS, FAMILY, GIVEN, NATIONS, TOWNS, listed, words

FIRST = words(
    "James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Joseph "
    "Susan Thomas Jessica Charles Karen Daniel Nancy Matthew Lisa Anthony Betty Mark Sandra Donald "
    "Ashley Steven Kimberly Paul Emily Andrew Donna Joshua Michelle Kenneth Carol Kevin Amanda "
    "Brian Melissa George Deborah Edward Stephanie Ronald Rebecca Timothy Laura Jason Sharon "
    "Jeffrey Cynthia Ryan Kathleen Jacob Amy Gary Angela Nicholas Shirley Eric Anna Jonathan Ruth "
    "Stephen Brenda Larry Pamela Justin Nicole Scott Katherine Brandon Samantha Frank Christine "
    "Benjamin Catherine Gregory Virginia Samuel Debra Raymond Rachel Patrick Janet Alexander Emma "
    "Jack Olivia Dennis Sophie Jerry Grace Tyler Chloe Aaron Victoria Henry Hannah Oscar Zoe Liam "
    "Noah Mia Lucas Ella Ethan Ava Logan Isla Owen Ruby Harvey Poppy Callum Freya Rhys Niamh Sean "
    "Aoife Ciaran Siobhan Hans Greta Jürgen Ursula Klaus Heike Stefan Sabine Wolfgang Ingrid Uwe "
    "Anja Pierre Camille Jean Amélie Louis Chloé Mathieu Élodie Luc Margaux Marco Giulia Luca "
    "Chiara Alessandro Francesca Matteo Valentina Giovanni Elena Carlos María José Lucía Javier "
    "Carmen Diego Sofía Pablo Marta Miguel Isabel João Ana Pedro Beatriz Rui Inês Tiago Mariana "
    "Jan Agnieszka Piotr Katarzyna Tomasz Zofia Marek Magdalena Ivan Olga Dmitri Natasha Sergei "
    "Svetlana Alexei Irina Vladimir Tatiana Petr Jana Jiří Lenka Milan Zdenka Zoran Dragana Luka "
    "Ivana Ante Marija Lars Astrid Erik Freja Olaf Sigrid Magnus Linnea Anders Maja Jukka Aino "
    "Mikko Päivi Nikos Eleni Yannis Dimitra Mehmet Ayşe Mustafa Fatma Emre Zeynep Ahmed Fatima "
    "Mohamed Aisha Omar Layla Hassan Noor Ali Yasmin Youssef Amina Ravi Priya Arjun Ananya Sanjay "
    "Deepa Vikram Kavita Rahul Neha Wei Li Jun Mei Hiroshi Yuki Kenji Sakura Takashi Haruka Minh "
    "Linh Tuan Huong Jin Soo Min Hye Kwame Ama Chidi Ngozi Thabo Zanele Sipho Lerato Moses Grace "
    "Tamar Avi Yael Moshe Noa David Hemi Aroha Tane Kiri"
)
LAST = words(
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez "
    "Gonzalez Wilson Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris "
    "Sanchez Clark Ramirez Lewis Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill "
    "Flores Green Adams Nelson Baker Hall Rivera Campbell Mitchell Carter Roberts Gomez Phillips "
    "Evans Turner Diaz Parker Cruz Edwards Collins Reyes Stewart Morris Morales Murphy Cook Rogers "
    "Gutierrez Ortiz Morgan Cooper Peterson Bailey Reed Kelly Howard Ramos Kim Cox Ward Richardson "
    "Watson Brooks Chavez Wood James Bennett Gray Mendoza Ruiz Hughes Price Alvarez Castillo "
    "Sanders Patel Myers Long Ross Foster O'Brien O'Connor McDonald McKenzie Fitzgerald Byrne "
    "Gallagher Doyle Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann "
    "Schäfer Koch Bauer Richter Klein Wolf Schröder Neumann Zimmermann Dubois Lefebvre Moreau "
    "Laurent Girard Roux Fournier Lambert Bonnet Rousseau Rossi Russo Ferrari Esposito Bianchi "
    "Romano Colombo Ricci Marino Greco Conti Fernández Álvarez Jiménez Moreno Muñoz Romero Navarro "
    "Silva Santos Ferreira Pereira Oliveira Costa Rodrigues Carvalho Kowalski Nowak Wiśniewski "
    "Wójcik Kamiński Lewandowski Zieliński Ivanov Petrov Sidorov Smirnov Kuznetsov Popov Volkova "
    "Sokolova Morozov Novák Svoboda Dvořák Černý Horvat Kovačević Babić Marić Jurić Hansen "
    "Johansen Olsen Larsen Andersen Nilsson Eriksson Lindqvist Bergström Lundgren Virtanen "
    "Korhonen Nieminen Papadopoulos Georgiou Y\u0131lmaz Kaya Demir Şahin Çelik Haddad Khalil "
    "Mansour "
    "Al-Farsi Rahman Hussain Khan Sharma Gupta Singh Kumar Reddy Iyer Mehta Chen Wang Zhang Liu "
    "Yang Huang Zhao Wu Tanaka Suzuki Takahashi Watanabe Yamamoto Nakamura Tran Pham Le Park Choi "
    "Jung Okafor Mensah Diallo Mbeki Dlamini Nkosi Cohen Levi Mizrahi van Dijk Jansen Visser Smit "
    "Bakker Meijer"
)
CITIES = listed(
    "London,Manchester,Bristol,Leeds,Glasgow,Dublin,Cork,New York,Chicago,Houston,Phoenix,Dallas,"
    "Seattle,Boston,Denver,Portland,Austin,San Diego,Miami,Atlanta,Toronto,Montreal,Vancouver,"
    "Sydney,Melbourne,Perth,Auckland,Wellington,Berlin,Hamburg,Munich,Cologne,Frankfurt,Vienna,"
    "Salzburg,Zurich,Geneva,Paris,Lyon,Marseille,Bordeaux,Lille,Madrid,Barcelona,Valencia,Seville,"
    "Lisbon,Porto,Rome,Milan,Naples,Turin,Bologna,Amsterdam,Rotterdam,Utrecht,Brussels,Antwerp,"
    "Copenhagen,Aarhus,Oslo,Bergen,Stockholm,Göteborg,Malmö,Helsinki,Tampere,Reykjavik,Warsaw,"
    "Kraków,Gdańsk,Prague,Brno,Budapest,Debrecen,Bucharest,Sofia,Belgrade,Zagreb,Split,Ljubljana,"
    "Athens,Thessaloniki,Istanbul,Ankara,Izmir,Moscow,Kyiv,Lviv,Minsk,Riga,Vilnius,Tallinn,"
    "Tel Aviv,"
    "Haifa,Cairo,Casablanca,Lagos,Nairobi,Accra,Cape Town,Durban,Dubai,Doha,Riyadh,Tehran,Karachi,"
    "Lahore,Mumbai,Delhi,Bangalore,Chennai,Dhaka,Colombo,Bangkok,Hanoi,Singapore,Jakarta,Manila,"
    "Hong Kong,Shanghai,Beijing,Shenzhen,Taipei,Seoul,Busan,Tokyo,Osaka,Kyoto,São Paulo,Recife,"
    "Buenos Aires,Santiago,Lima,Bogotá,Quito,Caracas,Mexico City,Guadalajara,Havana,Springfield,"
    "Wollongong,Kilkenny,Villach,Graz,Tromsø,Odense,Uppsala,Joensuu,Maribor,Ostrava,Pécs,Sligo,"
    "Nancy,Perugia,Braga,Vigo,Tilburg,Ghent,Hobart,Dunedin,Fargo,Boise,Tulsa,Reno"
)
COUNTRIES = listed(
    "Austria,Australia,Belgium,Brazil,Bulgaria,Canada,Chile,China,Colombia,Croatia,Cuba,Cyprus,"
    "Denmark,Ecuador,Egypt,Estonia,Ethiopia,Finland,France,Georgia,Germany,Ghana,Greece,Guatemala,"
    "Hungary,Iceland,India,Indonesia,Iran,Iraq,Ireland,Israel,Italy,Jamaica,Japan,Jordan,Kenya,"
    "Latvia,Lebanon,Lithuania,Luxembourg,Madagascar,Malaysia,Malta,Mexico,Moldova,Mongolia,Morocco,"
    "Nepal,the Netherlands,New Zealand,Nigeria,Norway,Pakistan,Panama,Paraguay,Peru,Poland,"
    "Portugal,"
    "Qatar,Romania,Rwanda,Saudi Arabia,Senegal,Serbia,Singapore,Slovakia,Slovenia,South Africa,"
    "South Korea,Spain,Sri Lanka,Sweden,Switzerland,Syria,Taiwan,Tanzania,Thailand,Tunisia,Turkey,"
    "Uganda,Ukraine,the United Kingdom,Uruguay,Venezuela,Vietnam,Yemen,Zambia,Zimbabwe,Bahamas,"
    "Barbados,Belize,Fiji,Haiti,Malawi,Mali,Namibia,Niger,Oman,Samoa,Tonga,Vanuatu"
)
PEOPLES = words(
    "American British Irish French German Italian Spanish Portuguese Polish Czech Hungarian Dutch "
    "Belgian Swedish Norwegian Danish Finnish Greek Turkish Russian Ukrainian Israeli Egyptian "
    "Nigerian Kenyan Indian Pakistani Chinese Japanese Korean Vietnamese Thai Brazilian Mexican "
    "Argentinian Canadian Australian Jewish Muslim Christian Catholic Hindu Buddhist Hispanic "
    "Republican Democrat Kurdish Roma Māori"
)
STREETS = words(
    "Oak Maple Cedar Park Church High Station Victoria Mill Elm Pine Lake River Hill Spring Sunset "
    "Washington Lincoln Franklin Jefferson Kings Queens Abbey Castle Meadow Orchard Chestnut "
    "Birch Willow Highland Forest Bridge Market Garden Harbour North West Stonegate Fairview"
)
STREET_KINDS = ("Street", "St.", "Road", "Rd", "Avenue", "Ave", "Lane", "Drive", "Court", "Close",
                "Boulevard", "Way", "Place", "Crescent", "Terrace")  # fmt: skip
FOREIGN_STREETS = listed(
    "Hauptstraße,Bahnhofstraße,Goethestrasse,Lindenweg,Am Markt,Rue de la Paix,Rue Victor Hugo,"
    "Avenue Jean Jaurès,Via Roma,Via Garibaldi,Corso Italia,Calle Mayor,Calle de Alcalá,"
    "Avenida da Liberdade,Rua Augusta,Kerkstraat,Dorpsstraat,Stationsweg,Storgatan,Kungsgatan,"
    "Skolevej,Vestergade,Kirkeveien,Mannerheimintie,ul. Długa,ul. Polna,Husova,Kossuth utca,"
    "Ilica,Bulevar Oslobođenja,Atatürk Caddesi,Nevsky Prospekt,Leoforos Kifisias,Kvartsveien,"
    "Västra Hamngatan,Brekkustígur,Rantakatu,Pöllaugasse,Schulgasse,Via Nazionale,Strada Lungă"
)
ORG_HEADS = words(
    "Acme Northwind Globex Initech Umbrella Stark Vertex Pioneer Summit Horizon Evergreen Bluebird "
    "Redwood Silverline Quantum Atlas Nimbus Cobalt Harbor Meridian Keystone Lighthouse Falcon "
    "Apex Orion Zenith Delta Sterling Crown Nova Titan Beacon Cascade Fortis Lumen"
)
ORG_TAILS = ("Ltd.", "Inc.", "LLC", "GmbH", "AG", "Group", "Bank", "Industries", "Holdings",
             "Partners", "Solutions", "Systems", "University", "Hospital", "Records", "Motors",
             "Airlines", "Insurance", "Foundation", "Consulting", "and Sons", "S.A.")  # fmt: skip
KNOWN_ORGS = listed(
    "Microsoft,Google,Amazon,Apple,Toyota,Siemens,Nokia,Shell,Walmart,Pfizer,Barclays,HSBC,Vodafone,"
    "Lufthansa,Ryanair,Volkswagen,Sony,Samsung,Intel,IBM,Oracle,Netflix,Spotify,Unilever,Nestlé,"
    "BBC,NASA,UNICEF,Red Cross,Harvard University,Oxford University,MIT,General Motors,Ford,Boeing,"
    "Airbus,Deutsche Bank,IKEA,Adidas,Nike,Warner Bros,Columbia Records,EMI"
)
JOBS = listed(
    "teacher,accountant,nurse,software engineer,sales manager,electrician,architect,lawyer,chef,"
    "plumber,journalist,project manager,civil engineer,pharmacist,graphic designer,analyst,"
    "secretary,mechanic,professor,consultant,pilot,librarian,musician,marketing director"
)
PREFIXES = ("Mr.", "Mrs.", "Ms.", "Miss", "Dr.", "Prof.", "Mr", "Mrs", "Ms", "Dr", "Sir")
STATES = words("AL AZ CA CO CT FL GA IA IL IN KS KY LA MA MD MI MN MO NC NE NJ NV NY OH OK OR PA "
    "SC TN TX UT VA WA WI")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
DOMAINS = (".com", ".net", ".org", ".co.uk", ".de", ".io")
MAILS = ("gmail.com", "yahoo.com", "hotmail.com", "outlook.com", "web.de", "orange.fr", "proton.me",
         "company.org", "northwind.io", "mail.co.uk")  # fmt: skip


FIRST += GIVEN
LAST += FAMILY
CITIES += TOWNS
COUNTRIES += NATIONS
PEOPLES += CITIZENS


def gazetteer(share: float, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Single words of given names, family names and places: this share of each, so that the frames
    are filled with unknown names too, as real texts are."""
    rng = random.Random(seed)
    places = (*CITIES, *COUNTRIES, *PEOPLES)
    return _part(FIRST, share, rng), _part(LAST, share, rng), _part(places, share, rng)


def _part(names: Iterable[str], share: float, rng: random.Random) -> list[str]:
    found = {
        word
        for name in names
        for word in name.replace("-", " ").replace("'", " ").split()
        if len(word) > 2 and word[0].isupper()
    }
    return [word for word in sorted(found) if rng.random() < share]


def digits(rng: random.Random, form: str) -> str:
    """`#` becomes a digit, `@` a capital letter."""
    return "".join(
        str(rng.randrange(10))
        if c == "#"
        else rng.choice(string.ascii_uppercase)
        if c == "@"
        else c
        for c in form
    )


def first(rng: random.Random) -> str:
    return rng.choice(FIRST)


def last(rng: random.Random) -> str:
    return rng.choice(LAST)


def person(rng: random.Random) -> str:
    style = rng.random()
    if style < 0.72:
        return f"{first(rng)} {last(rng)}"
    if style < 0.8:
        return f"{first(rng)} {rng.choice(string.ascii_uppercase)}. {last(rng)}"
    if style < 0.86:
        return f"{rng.choice(PREFIXES)} {last(rng)}"
    if style < 0.92:
        return f"{rng.choice(PREFIXES)} {first(rng)} {last(rng)}"
    return f"{first(rng)} {last(rng)}-{last(rng)}" if style < 0.95 else f"{last(rng)}, {first(rng)}"


def street(rng: random.Random) -> str:
    if rng.random() < 0.35:
        return rng.choice(FOREIGN_STREETS)
    name = rng.choice((rng.choice(STREETS), last(rng)))
    return f"{name} {rng.choice(STREET_KINDS)}"


def postcode(rng: random.Random) -> str:
    return digits(rng, rng.choice(("#####", "#####", "####", "#####-####", "@@# #@@", "@## @#@#",
                                   "### ##", "##-###", "#### @@")))  # fmt: skip


def address(rng: random.Random) -> str:
    number = str(rng.randrange(1, 1500))
    road, city = street(rng), rng.choice(CITIES)
    line = f"{road} {number}" if rng.random() < 0.35 else f"{number} {road}"
    if rng.random() < 0.25:
        line += rng.choice((" Apt. ", ", Suite ", " Unit ", ", Flat ")) + str(rng.randrange(1, 999))
    gap = rng.choice((", ", ", ", "\n", " "))
    if rng.random() < 0.3:
        place = f"{city}{gap}{rng.choice(STATES)} {digits(rng, '#####')}"
    elif rng.random() < 0.5:
        place = f"{postcode(rng)} {city}"
    else:
        place = f"{city} {postcode(rng)}"
    tail = gap + rng.choice(COUNTRIES) if rng.random() < 0.3 else ""
    return line if rng.random() < 0.12 else f"{line}{gap}{place}{tail}"


def organization(rng: random.Random) -> str:
    style = rng.random()
    if style < 0.35:
        return rng.choice(KNOWN_ORGS)
    if style < 0.75:
        return f"{rng.choice(ORG_HEADS)} {rng.choice(ORG_TAILS)}"
    if style < 0.9:
        return f"{last(rng)} {rng.choice(ORG_TAILS)}"
    return f"{last(rng)} & {last(rng)}"


def email(rng: random.Random) -> str:
    name, family = first(rng).lower(), last(rng).lower().replace("'", "")
    joined = rng.choice((f"{name}.{family}", f"{name}{rng.randrange(99)}", f"{name[0]}{family}"))
    return f"{joined}@{rng.choice(MAILS)}"


def phone(rng: random.Random) -> str:
    return digits(rng, rng.choice((
        "(###) ###-####", "###-###-####", "+1 ### ### ####", "+44 7### ######", "0## #### ####",
        "+49 1## #######", "+33 6 ## ## ## ##", "0##########", "### ### ###", "+## ## ### ## ##",
        "###.###.####", "0### ######", "########", "(0##) #### ####", "001-###-###-####x###",
    )))  # fmt: skip


def date(rng: random.Random) -> str:
    day, month, year = rng.randrange(1, 29), rng.randrange(1, 13), rng.randrange(1935, 2026)
    name = MONTHS[month - 1]
    return rng.choice((
        f"{day:02}/{month:02}/{year}", f"{year}-{month:02}-{day:02}", f"{name} {day}, {year}",
        f"{day} {name} {year}", f"{day}.{month}.{year}", f"{name[:3]} {day}", f"{day} {name}",
        f"{rng.choice(DAYS)}, {name} {day}", f"{month}/{day}/{year % 100:02}",
        f"{year}-{month:02}-{day:02} {rng.randrange(24):02}:{rng.randrange(60):02}:00",
    ))  # fmt: skip


def card(rng: random.Random) -> str:
    return digits(rng, rng.choice(("4###############", "4### #### #### ####", "5###-####-####-####",
                                   "3#############", "37## ###### #####", "6011############",
                                   "30############")))  # fmt: skip


def _of(options: Sequence[str]) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(options)


def _like(*forms: str) -> Callable[[random.Random], str]:
    return lambda rng: digits(rng, rng.choice(forms))


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "person": person,
    "first": first,
    "last": last,
    "cyrillic": cyrillic,
    "prefix": _of(PREFIXES),
    "city": _of(CITIES),
    "country": _of(COUNTRIES),
    "people": _of(PEOPLES),
    "street": street,
    "address": address,
    "zip": postcode,
    "org": organization,
    "job": _of(JOBS),
    "email": email,
    "phone": phone,
    "date": date,
    "day": _of(DAYS),
    "age": lambda rng: str(rng.randrange(3, 95)),
    "number": lambda rng: str(rng.randrange(2, 400)),
    "card": card,
    "iban": _like(
        "GB##@@@@##############",
        "DE## #### #### #### #### ##",
        "FR####################",
        "ES## #### #### #### #### ####",
        "NL##@@@@##########",
    ),
    "ssn": _like("###-##-####", "### ## ####", "#########"),
    "licence": _like("@#######", "@@######", "##########", "@###-####-####", "########"),
    "passport": _like("#########", "@########", "@@#######", "C@#@####"),
    "ip": lambda rng: ".".join(str(rng.randrange(1, 255)) for _ in range(4)),
    "url": lambda rng: f"https://www.{last(rng).lower()}{rng.choice(DOMAINS)}/",
}
