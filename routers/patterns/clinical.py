"""Clinical text about a person: record numbers, diagnoses, doses, notes and consultations.

A question about medicine is not a record. So clinical words alone never decide: they count
together with a person who is being treated (`patient presents`, `DOB`, a doctor's and a
patient's turns). Words are looked up in sets, which is linear and needs no regex; the regexes
run only where a word gave them a reason to.
"""

from __future__ import annotations

import re

from routers.patterns.windows import REACH, WINDOW, has_match

# Letters a-z stay, A-Z fall to lower case, every other ASCII character separates words.
_FOLD = bytes(
    byte | 0x20 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 or byte >= 0x80 else 0x20
    for byte in range(256)
)


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


_PATIENT = _words(
    "patient pt patientin patienten paciente pacientes patiente paziente patiënt pacjent pasient"
)
_CLINICIAN = _words("doctor dr physician nurse arzt ärztin médecin médico doktor clinician")
# What a note says of a patient; `_TOLD_LOOSELY` are words that other texts use as well.
_TOLD = _words(
    "presents presented presenting denies denied complains complained complaining diagnosed "
    "discharged underwent prescribed hospitalized intubated afebrile nauseated resuscitated "
    "vorstellig klagt berichtet aufgenommen entlassen verordnet eingeliefert diagnostiziert "
    "présente consulte souffre hospitalisé hospitalisée prescrit adressé adressée "
    "acude refiere presenta ingresó ingresa diagnosticado diagnosticada prescrito niega "
    "lamenta ricoverato ricoverata riferisce"
)
_TOLD_LOOSELY = _TOLD | _words(
    "reports reported states stated admitted referred examined tolerated complaint stellt stellte "
    "returns evaluated treated follow"
)
# Abbreviations and headings that hardly occur outside of records.
_RECORD = _words(
    "hpi ros pmh heent prn bid tid qid qhs wnl nkda nka perrl perrla dob mrn icd ekg ecg cbc bmp "
    "cabg copd gerd chf cad bph htn dm uti dvt sob gravida para normocephalic atraumatic "
    "anicteric supple nontender nondistended murmurs gallops rhonchi rales crackles "
    "organomegaly auscultation palpation bilaterally unremarkable noncontributory afebrile "
    "anamnese befund epikrise entlassungsbrief arztbrief aufnahmebefund vorerkrankungen "
    "antécédents anamnèse ordonnance anamnesis antecedentes epicrisis anamnesi"
)
_CLINICAL = _RECORD | _words(
    "pain ache aches headache headaches migraine fever chills cough nausea vomiting diarrhea "
    "constipation dizziness vertigo fatigue swelling rash itching bleeding numbness tingling "
    "weakness palpitations dyspnea wheezing hemoptysis syncope seizure seizures insomnia edema "
    "congestion heartburn bruising tremor tinnitus paralysis incontinence dysuria hematuria "
    "symptom symptoms chest abdomen abdominal pelvic lumbar knee kidney kidneys liver lung lungs "
    "bowel bladder prostate thyroid breast uterus ovary spleen cardiac pulmonary renal hepatic "
    "neurologic cardiovascular respiratory gastrointestinal genitourinary musculoskeletal "
    "psychiatric skin extremities throat sinus ear ears "
    "hypertension diabetes diabetic asthma cancer carcinoma tumor stroke infarction pneumonia "
    "bronchitis arthritis osteoarthritis osteoporosis hypothyroidism hyperlipidemia anemia "
    "depression anxiety schizophrenia dementia epilepsy hepatitis cirrhosis hernia fracture "
    "fractures infection sepsis ulcer allergies allergy allergic obesity hiv aids lupus "
    "fibrillation angina gout eczema psoriasis sclerosis cholesterol cataract glaucoma "
    "metastatic lesion lesions nephropathy neuropathy murmur reflux apnea bipolar adhd autism "
    "diagnosis diagnoses dx rx prescription medication medications medicine dose dosage tablet "
    "tablets insulin metformin metoprolol lisinopril aspirin ibuprofen amoxicillin penicillin "
    "prednisone warfarin atorvastatin simvastatin albuterol omeprazole gabapentin morphine "
    "oxycodone tylenol acetaminophen levothyroxine furosemide lasix coumadin plavix lipitor "
    "zoloft prozac sertraline lorazepam xanax steroids antibiotics chemotherapy radiation "
    "surgery surgical surgeries biopsy mri ct xray ultrasound colonoscopy endoscopy mammogram "
    "appendectomy hysterectomy tonsillectomy cholecystectomy section anesthesia catheter "
    "transfusion vaccination immunizations bloodwork urine hemoglobin creatinine glucose "
    "platelets vitals pulse bp pregnant pregnancy pregnancies menstrual period pap abortion "
    "miscarriages smoker smoke smoking tobacco alcohol clinic hospital ward emergency medical "
    "checkup disease disorder disorders illness tuberculosis rhinitis coronary hemorrhage polio "
    "lymphoma leukemia abscess abscesses sprain lump rashes psychotic psychosis strokes "
    "complications drug drugs heroin marijuana nonsmoker congestive diplopia lymph "
    "doctors nurse vision sweats jaundice gallbladder appendix stitches wound wounds bruise "
    "sore hurts hurt hurting painful pains swollen dizzy tired breath breathing "
    "pressure heart blood stomach throat shoulder joint joints muscle muscles "
    "schmerz schmerzen brustschmerzen kopfschmerzen fieber husten übelkeit erbrechen schwindel "
    "atemnot blutdruck diagnose befund medikation medikament medikamente tabletten rezept "
    "herzinfarkt schlaganfall krebs diabetes operation krankenhaus klinik therapie erkrankung "
    "bluthochdruck allergien "
    "douleur douleurs fièvre toux nausées vomissements vertiges essoufflement thoracique "
    "diagnostic traitement médicament médicaments comprimés hypertension diabète hôpital "
    "opération allergie dolor fiebre tos vómitos mareo disnea torácico diagnóstico tratamiento "
    "medicamento medicación hipertensión cirugía alergias cáncer infarto "
    "dolore febbre tosse nausea pressione diagnosi terapia farmaco farmaci"
)
_TREATED = _words("prescribed verordnet prescrit recetado receta rezept rx prn bid tid qid")
_KIN = _words(
    "mother father brother sister aunt uncle grandmother grandfather siblings mutter vater"
)
_THIRD = _words("he she his her him er sie il elle él ella")
_FIRST = _words("i my me ich mein meine je mon ma mi mis")
_SECOND = _words("you your sir ma madam vous votre sie ihr ihre usted su")
_HISTORY = _words("history family died positive negative no vorerkrankungen familiär")
_PERSON = _words(
    "he she his her him mr mrs ms miss sir madam ma male female man woman boy girl lady gentleman "
    "i my me you your mother father son daughter "
    "er sie ihr herr frau il elle monsieur madame él ella señor señora sr sra"
)
_MEASURES = _words("mg mcg ml µg units iu")
_CODED = _words("icd diagnosis diagnosed dx diagnose diagnostic diagnóstico diagnosi code codes")
_BIRTH = _words("dob born geboren geburtsdatum naissance nacimiento née né nascita")
_IDENTIFIED = _words("mrn medical patient chart record krankenversicherungsnummer nhs insurance "
                     "versichertennummer hospital paciente fallnummer")  # fmt: skip

# One set decides whether there is anything to weigh at all.
_CUES = _PATIENT | _CLINICIAN | _CLINICAL | _TOLD_LOOSELY | _MEASURES | _CODED | _BIRTH
_CUES = _CUES | _IDENTIFIED
_ASKED_FOR = _CUES | _TREATED | _KIN | _THIRD | _FIRST | _SECOND | _HISTORY | _PERSON

_RECORD_NUMBER = re.compile(
    r"(?:\bmrn|\bmedical (?:record|chart)(?: (?:number|no|nr|id))?|\bpatient(?:en)?[ \-]?"
    r"(?:id|no|nr|number|nummer)\b|\bchart (?:number|no)|\bfallnummer|versichertennummer|"
    r"\bhistoria clínica|\bnhs (?:number|no)|\bipp)\b[^0-9\n]{0,16}[0-9](?:[ \-]?[0-9]){3}"
)
_ICD10 = re.compile(r"\b[a-tv-z][0-9][0-9ab]\.[0-9a-z]{1,4}\b")
_DOSE = re.compile(r"\b[0-9]{1,4}(?:[.,][0-9]{1,3})? ?(?:mg|mcg|µg|μg|units|iu|ml)\b")
_DATE = re.compile(r"\b[0-9]{1,4}[\-./][0-9]{1,2}[\-./][0-9]{2,4}\b")
_AGED = re.compile(
    r"\b[0-9]{1,3}[ \-]?(?:year|yr|month|week|day)s?[ \-]?old|\b[0-9]{1,3} ?y/?o\b|"
    r"\b[0-9]{1,3}[ \-]jährige|\b[0-9]{1,3} (?:años|ans)\b"
)
_THE_PATIENT = re.compile(r"\b(?:the|this|our|der|die|le|la|el) pa[tc]ient")
_SPEAKER = re.compile(r"(?:^|\n)[ \t*#>]{0,8}(?:patient|pt|patientin|paciente)[ \t*]{0,3}:")
_OTHER_SPEAKER = re.compile(
    r"(?:^|\n)[ \t*#>]{0,8}(?:doctor|dr|physician|nurse|clinician|arzt|ärztin|médecin|médico)"
    r"[ \t*]{0,3}:"
)
# One clinical term in so many different words.
_DENSE = 8
_SPARSE = 14
# More different words than this, and no text is dense.
_MANY = _SPARSE * len(_CLINICAL)


def clinical_kinds(text: str) -> set[str]:
    """The kinds of clinical record in normalised text. Linear, in memory that does not grow with
    it."""
    kinds: set[str] = set()
    words, distinct = _words_of(text)
    if _CUES.isdisjoint(words):
        return kinds
    terms = len(words & _CLINICAL)
    if not terms and words.isdisjoint(_IDENTIFIED):
        return kinds
    _identifiers(text, words, terms, kinds)
    if _is_consultation(text, words, terms, distinct):
        kinds.add("consultation")
    if _is_note(text, words, terms, distinct):
        kinds.add("clinical_note")
    return kinds


def _words_of(text: str) -> tuple[set[bytes], int]:
    """The words of a text in small letters, and how many: of a text with too many different ones
    to be dense in clinical terms, those that are asked for."""
    if len(text) <= WINDOW:
        tokens = _folded(text).split()
        # Most texts have nothing to weigh, and need no set.
        words = set() if _CUES.isdisjoint(tokens) else set(tokens)
        return words, len(words)
    words, most, rest = set(), 0, b""
    for start in range(0, len(text), WINDOW):
        folded = rest + _folded(text[start : start + WINDOW])
        tokens, rest = folded.split(), b""
        if tokens and start + WINDOW < len(text) and not folded.endswith(b" "):
            # No word that is asked for is as long as this.
            rest = tokens.pop()[:REACH]
        words.update(tokens)
        most = max(most, len(words))
        if most > _MANY:
            words &= _ASKED_FOR
    return words, most


def _folded(text: str) -> bytes:
    if not text.isascii():
        # Which of its two small letters a sigma gets depends on what follows, behind a cut or not.
        text = text.lower().replace("\u03c2", "\u03c3")
    return text.encode("utf-8", "replace").translate(_FOLD)


def _identifiers(text: str, words: set[bytes], terms: int, kinds: set[str]) -> None:
    if not words.isdisjoint(_IDENTIFIED) and has_match(_RECORD_NUMBER, text):
        kinds.add("medical_record_number")
    if terms >= 1 and not words.isdisjoint(_CODED) and has_match(_ICD10, text):
        kinds.add("icd10")
    if terms >= 2 and not words.isdisjoint(_BIRTH) and has_match(_DATE, text):
        kinds.add("dob_with_diagnosis")
    if not words.isdisjoint(_MEASURES) or terms >= 2:
        treated = not words.isdisjoint(_PATIENT) or not words.isdisjoint(_TREATED)
        somebody = not words.isdisjoint(_PERSON) or not words.isdisjoint(_PATIENT)
        if (treated or terms >= 4) and somebody and has_match(_DOSE, text):
            kinds.add("dose")


def _is_consultation(text: str, words: set[bytes], terms: int, distinct: int) -> bool:
    """Turns of a doctor and of a patient, or people talking of the body of one of them."""
    if not words.isdisjoint(_FIRST) and terms >= 4:
        if terms * _DENSE >= distinct:
            return True
        if not words.isdisjoint(_SECOND) and terms * _SPARSE >= distinct:
            return True
    if words.isdisjoint(_PATIENT | _CLINICIAN):
        return False
    patient, other = has_match(_SPEAKER, text), has_match(_OTHER_SPEAKER, text)
    if patient and other:
        return True
    return bool((patient or other) and (terms >= 1 or not words.isdisjoint(_THIRD)))


def _is_note(text: str, words: set[bytes], terms: int, distinct: int) -> bool:
    """Prose of a record: a person, what the note says of them, and clinical matter."""
    told, record = len(words & _TOLD), len(words & _RECORD)
    third = not words.isdisjoint(_THIRD)
    if not words.isdisjoint(_PATIENT):
        loosely = told or not words.isdisjoint(_TOLD_LOOSELY)
        if (loosely and terms >= 1) or (record and terms >= 2):
            return True
        if third and (terms >= 2 or has_match(_THE_PATIENT, text)):
            return True
        return terms >= 4 and has_match(_AGED, text)
    dense = terms * _DENSE >= distinct
    if record >= 3 or (record >= 2 and terms >= 4 and dense):
        return True
    if dense and terms >= 4 and (third or not words.isdisjoint(_HISTORY)):
        return True
    if third and terms >= 2 and has_match(_AGED, text):
        return True
    if terms >= 3 and not words.isdisjoint(_KIN) and not words.isdisjoint(_HISTORY):
        return third and dense
    return terms >= 3 and told >= 1 and dense and not words.isdisjoint(_PERSON)
