"""Spanish with its accents: the labelled Spanish sentences have lost every accented letter.

In `languages.jsonl.gz` the Spanish rows read "ms eficaz", "educacin", "ao" (one accented letter in
26,746 characters), so a model fitted on them takes the accents of real Spanish for Catalan. The
letters are put back where the rest of a word leaves no doubt, and sentences of our own show what
no rule restores. The rows as they are stay in as well: people do type without accents.
"""

from __future__ import annotations

import re

# Whole words, then beginnings, then endings of words of five letters and more.
_WORDS = {
    "ms": "más", "tambin": "también", "ao": "año", "aos": "años", "despus": "después",
    "segn": "según", "algn": "algún", "ningn": "ningún", "cmo": "cómo", "dems": "demás",
    "travs": "través", "pas": "país", "pases": "países", "est": "está", "qu": "qué", "as": "así",
    "slo": "sólo", "da": "día", "das": "días", "haba": "había", "haban": "habían",
    "tena": "tenía", "tenan": "tenían", "podra": "podría", "podr": "podrá",
    "habr": "habrá", "tendr": "tendrá", "nio": "niño", "nios": "niños",
    "seor": "señor", "seora": "señora", "pequeo": "pequeño", "pequeos": "pequeños",
    "maana": "mañana", "espaa": "españa", "espaol": "español", "espaola": "española",
    "espaoles": "españoles", "compaa": "compañía", "compaas": "compañías", "mxico": "méxico",
    "telfono": "teléfono", "mvil": "móvil", "pgina": "página", "pginas": "páginas",
    "artculo": "artículo", "vdeo": "vídeo", "jvenes": "jóvenes", "anlisis": "análisis",
    "crdito": "crédito", "perodo": "período", "nmero": "número", "rea": "área", "reas": "áreas",
    "rgimen": "régimen", "cdigo": "código", "mtodo": "método", "ttulo": "título",
    "quin": "quién", "cundo": "cuándo", "dnde": "dónde", "aqu": "aquí", "all": "allí",
    "adems": "además", "quiz": "quizás", "an": "aún", "jams": "jamás", "ltima": "última",
    "ltimo": "último", "ltimos": "últimos", "ltimas": "últimas", "nica": "única", "nico": "único",
    "poca": "época", "l": "él", "s": "sí",
    "lleg": "llegó", "naci": "nació", "empez": "empezó", "comenz": "comenzó", "uni": "unió",
    "dej": "dejó", "tom": "tomó", "gan": "ganó", "cre": "creó", "vivi": "vivió",
}  # fmt: skip
_BEGINNINGS = {
    "poltic": "polític", "pblic": "públic", "mdic": "médic", "fsic": "físic", "msic": "músic",
    "tcnic": "técnic", "econmic": "económic", "histric": "históric", "cientfic": "científic",
    "jurdic": "jurídic", "prctic": "práctic", "bsic": "básic", "clsic": "clásic",
    "mquina": "máquina", "electrnic": "electrónic", "informtic": "informátic",
    "matemtic": "matemátic", "qumic": "químic", "trmino": "término", "prximo": "próximo",
    "mximo": "máximo", "mnimo": "mínimo", "fcil": "fácil", "difcil": "difícil", "rpid": "rápid",
    "lnea": "línea", "pelcula": "película", "msculo": "músculo", "ejrcito": "ejército",
    "acadmic": "académic", "automtic": "automátic", "especfic": "específic",
}  # fmt: skip
_ENDINGS = (
    ("cin", "ción"),
    ("xin", "xión"),
    ("sin", "sión"),
    ("loga", "logía"),
)
_LONG = 5
_WORD = re.compile(r"[^\W\d_]+")


def restore(text: str) -> str:
    """The text with the accents put back that its words make certain, or likely."""
    return _WORD.sub(_restored, text)


def _restored(match: re.Match[str]) -> str:
    word = match[0]
    low = word.lower()
    found = _WORDS.get(low)
    if found is None:
        found = next((b + low[len(a) :] for a, b in _BEGINNINGS.items() if low.startswith(a)), None)
    if found is None and len(low) >= _LONG:
        found = next((low[: -len(a)] + b for a, b in _ENDINGS if low.endswith(a)), None)
    if found is None:
        return word
    return found.capitalize() if word[0].isupper() else found


OWN = (
    "¿Cómo se llama la montaña más alta del país y en qué año se escaló por primera vez?",
    "¿Quién descubrió la penicilina y cuándo la presentó?",
    "¿Dónde nació el pintor que pintó este retrato?",
    "¿Cuántos kilómetros hay entre las dos estaciones?",
    "¿Por qué razón decidió el rey abandonar la península?",
    "¿Qué función tenía el río en la antigüedad?",
    "¿Cuál fue la causa principal de la caída del régimen?",
    "¿En qué siglo se construyó la muralla que rodea la población?",
    "¿A qué hora empezó la reunión y quiénes asistieron?",
    "¿Cuánto costó la construcción del túnel?",
    "¿Qué ocurrió después de que el ejército cruzó la frontera?",
    "¡Qué alegría verte aquí! ¿Qué tal estás?",
    "El niño comió, bebió y después se durmió en el sillón de su tío.",
    "La señora González vivió más de cien años en una pequeña aldea de montaña.",
    "Mañana será un día difícil, pero también muy especial para mí.",
    "Según el último informe, la economía española creció un dos por ciento.",
    "El científico explicó que la reacción química liberó mucha energía.",
    "Además, el público aplaudió la interpretación de la música clásica.",
    "Él volvió a casa, encendió la televisión y llamó por teléfono a su mamá.",
    "Así empezó la revolución que cambió la historia de la región.",
    "Ningún país había conseguido tantos éxitos en tan pocos años.",
    "Mi compañera está enseñando inglés y alemán a unos jóvenes.",
    "El avión llegó con retraso porque había niebla en el aeropuerto de Málaga.",
    "Escribe una función que calcule el área de un triángulo y devuelve el número.",
    "Necesito que me ayudes a corregir el código, porque da un error en la línea tres.",
    "Explícame qué es una variable y cómo se utiliza en programación.",
    "Traduce el siguiente párrafo al español y resúmelo en una oración.",
    "Redacta un correo electrónico pidiéndole al médico una cita el próximo miércoles.",
    "¿Podrías darme un ejemplo más sencillo? No entendí la explicación.",
    "El corazón bombea la sangre a través de las arterias hacia todos los órganos.",
    "El árbol más viejo del jardín perdió sus hojas en otoño.",
    "La película ganó el premio al mejor guión y su director se emocionó.",
    "Todavía no sé si vendrán a la fiesta de cumpleaños de Ángel.",
    "El equipo perdió el partido, aunque jugó muy bien en la segunda mitad.",
    "La unión de ambos reinos se produjo tras una larga negociación.",
    "Hoy en día la mayoría de la población tiene acceso a la educación pública.",
    "Entró en la habitación, abrió el cajón y sacó un lápiz y un papel.",
    "La invasión terminó cuando se firmó la paz y el príncipe regresó al palacio.",
    "Estudió física y matemáticas, y trabajó como ingeniero en una compañía eléctrica.",
    "Me gustaría saber cuáles son las ventajas y las desventajas de este método.",
)
