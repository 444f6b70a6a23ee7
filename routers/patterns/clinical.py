"""Clinical text about a person: record numbers, diagnoses, doses, notes and consultations.

A question about medicine is not a record. So clinical words alone never decide: they count
together with a person who is being treated (`patient presents`, `DOB`, a doctor's and a
patient's turns). Words are looked up in sets, which is linear and needs no regex; the regexes
run only where a word gave them a reason to.
"""

from __future__ import annotations

import re

from routers.patterns.windows import REACH, WINDOW, Steps, has_match

# Letters a-z stay, A-Z fall to lower case, every other ASCII character separates words.
_FOLD = bytes(
    byte | 0x20 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 or byte >= 0x80 else 0x20
    for byte in range(256)
)


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


_PATIENT = _words(
    "patient pt patientin patienten paciente pacientes patiente paziente patiënt pacjent pasient "
    "pazienti patiënte patiënten pacjentka pacjenta pacjentki chory chora chorego chorej doente "
    "utente patientens pasienten pasientens"
)
# Of these no plural is the same, and none is an English word.
_ONE_PATIENT = _words(
    "patientin patiente paziente paciente patiënt patiënte pacjent pacjentka doente pasienten"
)
_ABROAD = _words(
    "er sie il elle él ella lei ela hij zij hon ona "
    "frau mann herr femme homme monsieur madame mujer varón hombre niña niño uomo mulher "
    "homem mevrouw meneer vrouw kvinna kvinne kvinde kobieta mężczyzna"
)
_CLINICIAN = _words(
    "doctor dr physician nurse arzt ärztin médecin médico doktor clinician médica medico "
    "dottore dottoressa doutor doutora huisarts dokter lekarz lekarka läkare läkaren legen læge "
    "lægen"
)
# What a note says of a patient; `_TOLD_LOOSELY` are words that other texts use as well.
_TOLD = _words(
    "presents presented presenting denies denied complains complained complaining diagnosed "
    "discharged underwent prescribed hospitalized intubated afebrile nauseated resuscitated "
    "vorstellig klagt berichtet aufgenommen entlassen verordnet eingeliefert diagnostiziert "
    "présente consulte souffre hospitalisé hospitalisée prescrit adressé adressée "
    "acude refiere presenta ingresó ingresa diagnosticado diagnosticada prescrito niega "
    "lamenta ricoverato ricoverata riferisce "
    "klagte vorgestellt eingewiesen hospitalisiert admis admise transféré transférée présentait "
    "ingresado ingresada acudió remitido remitida giunge dimesso dimessa nega prescrive queixa "
    "refere internado internada medicado medicada klaagt opgenomen ontslagen verwezen "
    "voorgeschreven ontkent zgłosił zgłosiła skarży przyjęty przyjęta wypisany wypisana "
    "rozpoznano zlecono zalecono neguje söker inkommer inlagd utskriven klagar förnekar klager "
    "innlagt utskrevet indlagt udskrevet "
    "plaint revu revue zgłasza przyjmuje uppger opplyser oplyser"
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
    "antécédents anamnèse ordonnance anamnesis antecedentes epicrisis anamnesi "
    "anamnes ausculta auskultation auscultazione palpazione palpación palpação osłuchowo "
    "epikryza epicrise epicrisi ontslagbrief crepitaties fosa auscultatie"
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
    "dolore febbre tosse nausea pressione diagnosi terapia farmaco farmaci "
    "hypertonie lunge lungen niere nieren leber pneumonie bauchschmerzen kopfschmerz entzündung "
    "infektion antibiotika antibiotikum blutung schwellung röntgenbild paracetamol ramipril "
    "karzinom céphalée céphalées asthme pénicilline pulmonaire abdominale antibiotique "
    "antibiotiques pneumopathie cœur poumon poumons foie rein reins hypertendu hypertendue "
    "anémie troponine apyrétique amlodipine cefalea neumonía infección urinaria antibiótico "
    "antibióticos asma penicilina hígado riñón pulmón pulmones fractura náuseas dislipemia "
    "enalapril urgencias analgésico insulina hipertensión fibrillazione dispnea edemi polmonite "
    "addome ipertensione diabete antibiotici antibiotico cuore polmoni fegato infezione vomito "
    "paracetamolo amoxicillina frattura tachicardia dor torácica febre tosse vômitos "
    "hipertensão coração pulmonar pulmão fígado infecção infeção medicação tratamento losartana "
    "sibilos cefaleia tontura alergia diabética hoesten koorts longen longontsteking hartfalen "
    "kortademigheid medicatie hoofdpijn duizeligheid bloeddruk buikpijn misselijkheid pijn "
    "antibiotica ziekenhuis doxycycline furosemide allergie ból bólu bóle gorączka gorączki "
    "gorączkę nadciśnienie nadciśnienia cukrzyca cukrzycy leki duszność duszności obrzęki "
    "obrzęków serca kaszel nudności wymioty płuc wątroba nerki tkliwość usg antybiotyk "
    "metformina troponinę bröstsmärta andnöd blodtryck lunginflammation huvudvärk feber hosta "
    "illamående yrsel smärta hjärta lungor brystsmerter blodtrykk hodepine kvalme smerter "
    "blodtryk hovedpine hoste åndenød "
    "rückenschmerzen halsschmerzen gelenkschmerzen magenschmerzen durchfall verstopfung "
    "ausschlag schlaflosigkeit depression fraktur schenkelhalsfraktur oberschenkelhalsbruch "
    "knochenbruch gestürzt sturz narkose blinddarm gallensteine migräne thrombose embolie "
    "demenz epilepsie arthrose anämie schilddrüse schwanger schwangerschaft wunde geschwür "
    "metastasen chemotherapie bestrahlung röntgen mrt sonographie ultraschall kreatinin "
    "diarrhée éruption insomnie anxiété dépression entorse plaie brûlure anesthésie appendicite "
    "calculs thrombose embolie démence épilepsie ostéoporose arthrose thyroïde thyroïdien "
    "enceinte ulcère métastases chimiothérapie radiothérapie radiographie irm échographie "
    "angine otite grippe insuffisance diabétique glycémie infectée infecté persiste "
    "diarrea estreñimiento erupción insomnio ansiedad depresión herida quemadura caída "
    "anestesia apendicitis migraña trombosis embolia demencia epilepsia artrosis tiroides "
    "embarazada embarazo úlcera metástasis quimioterapia radioterapia radiografía ecografía "
    "otitis insuficiencia diabético diabética glucemia cadera amoxicilina ibuprofeno omeprazol "
    "stipsi eruzione insonnia ansia depressione ferita ustione caduta anestesia appendicite "
    "calcoli emicrania trombosi demenza epilessia artrosi tiroide incinta gravidanza ulcera "
    "metastasi chemioterapia radiografia ecografia otite diabetico diabetica glicemia "
    "medicazione ibuprofene "
    "diarreia obstipação erupção insônia insónia depressão ferida queimadura queda apendicite "
    "enxaqueca trombose demência epilepsia artrose tireoide grávida gravidez metástases "
    "ressonância gripe insuficiência diabético expetoração roncos auscultação "
    "diarree obstipatie slapeloosheid depressie wond brandwond gevallen narcose blindedarm "
    "galstenen trombose dementie epilepsie artrose schildklier zwanger zwangerschap zweer "
    "uitzaaiingen bestraling röntgenfoto echografie oorontsteking griep heupfractuur fractuur "
    "geopereerd "
    "biegunka zaparcia wysypka bezsenność depresja rana rany oparzenie upadek znieczulenie "
    "zapalenie kamica migrena zakrzepica otępienie padaczka choroba choroby tarczyca ciąża "
    "ciąży wrzód przerzuty chemioterapia rezonans grypa glukoza złamanie oddział uczulenie "
    "uczulenia "
    "diarré förstoppning utslag sömnlöshet ångest sår brännskada fallit narkos blindtarm "
    "gallsten migrän demens epilepsi artros sköldkörtel gravid graviditet röntgen ultraljud "
    "öroninflammation influensa höftfraktur opereras blodtrycket forstoppelse utslett "
    "søvnløshet brudd lårhalsbrudd svanger lungebetennelse udslæt søvnløshed lungebetændelse "
    "antikoagulation vorhofflimmern raucher beschwerdefrei krankengymnastik gerötet trommelfell "
    "wehen amoxicillin apixaban tympan plâtre oxygène amoxicilline "
    "enfant grossesse epoc disnea saturación oxígeno convulsión neurológica ayunas glucosa "
    "metformina hernia apendicitis colecistectomia decorso torace emoglobina gastroscopia "
    "stanchezza ernia sottoposto hérnia complicações ouvido tímpano amoxicilina "
    "tonturas tensão galblaas beloop oorpijn trommelvlies amoxicilline suikerziekte duizelig "
    "tensie operacji powikłań gorączką bólem ucha amoksycylinę cukrzycą nadciśnieniem zawroty "
    "opererad gallsten komplikationer örat trumhinnan"
)
_TREATED = _words(
    "prescribed verordnet prescrit recetado receta rezept rx prn bid tid qid prescrive "
    "prescreve voorgeschreven zalecono przepisano ordinerats pauta beleid behandlas"
)
_KIN = _words(
    "mother father brother sister aunt uncle grandmother grandfather siblings mutter vater"
)
_THIRD = _words("he she his her him er sie il elle él ella lei ela hij zij hon ona")
_FIRST = _words("i my me ich mein meine je mon ma mi mis")
_SECOND = _words("you your sir ma madam vous votre sie ihr ihre usted su")
_HISTORY = _words(
    "history family died positive negative no vorerkrankungen familiär antécédents antecedentes "
    "anamnese anamnesi anamnesis anamnes wywiad voorgeschiedenis vorgeschichte"
)
_PERSON = _words(
    "he she his her him mr mrs ms miss sir madam ma male female man woman boy girl lady gentleman "
    "i my me you your mother father son daughter "
    "er sie ihr herr frau il elle monsieur madame él ella señor señora sr sra "
    "mujer varón hombre femme homme uomo mulher homem mevrouw meneer vrouw kvinna kvinde "
    "kobieta mężczyzna lei ela hij zij hon ona"
)
_MEASURES = _words("mg mcg ml µg units iu")
_CODED = _words("icd diagnosis diagnosed dx diagnose diagnostic diagnóstico diagnosi code codes")
_BIRTH = _words("dob born geboren geburtsdatum naissance nacimiento née né nascita")
_IDENTIFIED = _words("mrn medical patient chart record krankenversicherungsnummer nhs insurance "
                     "versichertennummer hospital paciente fallnummer")  # fmt: skip
# One of them is in every text in which a number of a record is looked for.
_NUMBERED = _IDENTIFIED | _words(
    "patientid patientnr patientnummer patientnumber patientno patientmrn medicalrecordnumber "
    "medicalrecord hospitalnumber chartnumber healthinsurancenumber healthinsuranceid kvnr "
    "patnr patientenid patientennr patientennummer patientinnennummer pat patienten aufnahmenummer "
    "versicherten versichertennr versichertenid krankenversicherten krankenversichertennr "
    "krankenversichertennummer krankenversicherungs krankenversicherungsnr "
    "patiënt patiëntnummer patiëntnr patiëntid patiëntennummer pasientnummer pasientnr "
    "potilasnumero potilastunnus pacjenta choroby paziente utente doente clinica clínica clinico "
    "clínico prontuario prontuário dossier sanitaria saúde saude ipp nhc"
)

# One set decides whether there is anything to weigh at all.
_CUES = _PATIENT | _CLINICIAN | _CLINICAL | _TOLD_LOOSELY | _MEASURES | _CODED | _BIRTH
_CUES = _CUES | _NUMBERED
_ASKED_FOR = _CUES | _TREATED | _KIN | _THIRD | _FIRST | _SECOND | _HISTORY | _PERSON | _ABROAD

# Names of fields count too (`patient_id`, `patientId`): `_` or nothing may join the words.
_RECORD_NUMBER = re.compile(
    r"(?<![^\W_])(?:"
    r"(?:mrn|kvnr|fallnummer|aufnahmenummer|hospital[ _\-]?number|potilas(?:numero|tunnus)|"
    r"medical[ _\-]?(?:record|chart)(?:[ _\-]?(?:number|no|nr|id))?|"
    r"(?:chart|nhs)[ _\-]?(?:number|no)|"
    r"pati[eë]nt(?:en|in)?[ _\-]?(?:id|no|nr|number|nummer|mrn)|pat\.?[ \-]?nr|"
    r"pasient(?:nummer|nr)|"
    r"(?:health[ _\-]?insurance|(?:kranken)?versicherten|krankenversicherungs)"
    r"[ _\-]?(?:id|nr|number|nummer)|"
    r"(?:n[úu]m[eé]ro|numer|nr|n°|n\.o|id|codice|identifiant) (?:de |du |do |del )?"
    r"(?:pa[cz]iente|patient|utente|pacjenta|doente))"
    r"(?![^\W\d_])[^0-9\n]{0,16}[0-9](?:[ \-]?[0-9]){3}|"
    # What may be followed by a year as well.
    r"(?:historia cl[íi]nica|cartella clinica|historii choroby|processo cl[íi]nico|"
    r"prontu[áa]rio|dossier (?:patient|m[ée]dical)|tessera sanitaria|"
    r"cart[ãa]o nacional de sa[úu]de|(?:ipp|nhc)(?= ?[:n]| [0-9]))"
    r"(?![^\W\d_])[^0-9\n]{0,16}[0-9](?:[ \-]?[0-9]){4}|"
    r"patient/[0-9]{4})"
)
_ICD10 = re.compile(r"\b[a-tv-z][0-9][0-9ab]\.[0-9a-z]{1,4}\b")
_DOSE = re.compile(r"\b[0-9]{1,4}(?:[.,][0-9]{1,3})? ?(?:mg|mcg|µg|μg|units|iu|ml)\b")
_DATE = re.compile(r"\b[0-9]{1,4}[\-./][0-9]{1,2}[\-./][0-9]{2,4}\b")
_AGED_ABROAD = (
    r"\b[0-9]{1,3}[ \-](?:jährige[mnrs]?|årig)\b|"
    r"\b[0-9]{1,3} (?:años|ans|anni|anos|jaar|jahre?|lat|år)\b|\blat [0-9]{1,3}\b"
)
_AGED = re.compile(
    r"\b[0-9]{1,3}[ \-]?(?:year|yr|month|week|day)s?[ \-]?old|\b[0-9]{1,3} ?y/?o\b|" + _AGED_ABROAD
)
_OF_AGE_ABROAD = re.compile(_AGED_ABROAD)
# One of them, not patients in general.
_ONE_OF_THEM = re.compile(
    r"\b(?:(?:der|die|dem|le|la) patient(?:in|e)?|(?:la|il|el|o|a) (?:pa[cz]iente|doente)|"
    r"de patiënte?)\b"
)
# Clinical words by stems that many languages share, and by their ends, for some write as one word
# what others write as two.
_CLINICAL_STEM = re.compile(
    r"[^\W\d_]{2,24}(?:schmerz(?:en)?|fraktur|bruch|entzündung|spiegelung|therapie|pijn|fractuur|"
    r"ontsteking|operatie|värk|smärta|smerter)\Z|"
    r"(?:pneum|bron[ck]h?[io]|h[yi]?pertens|h[yi]perton|diabet|cukrzyc|insuff?i[csz]|infar[ck]t|"
    r"trombo|thrombo|zakrzep|[ck]reatinin|d[iy]al[iy][sz]|epil[eé]p|fra[ck]?tur|fractuur|antib[iy]ot|"
    r"amo[ks][iy]?[cx]|terap|th[eé]rap|chemo|quimio|chimio|all?erg|astm|asm[ao]\Z|asthm|migr[aeä]n|"
    r"emicran|tumou?r|karzinom|carcinom|metast|anest|narko[sz]|h[eé]mogl|emoglob|radiogra|röntgen|"
    r"r[oø]ntgen|e[ck]hogra|ecogra|ecograf|tomogra|gastro|[ck]olonos|appendi|apendi|hernia|érnia|"
    r"dispn|dyspn|ta[ck]h?[iy][ck]ard|fibrill?a|arritm|aritm|s[eé]psis|infe[ck]|infeç|neuro|nefro|"
    r"n[eé]phro|ren(?:al|ale|ais)\Z|pulmon|[ck]ardi|gl[iuy][ck][aeéo]m|ins[uú]lin|[ck]orti[ck]o|"
    r"para[ck]etam|ibuprof|aspirin|métform|metform|p[hř]ysio|fisio|fizjo|fyzio|rehab|dement|démen|"
    r"dépress|depress|insonn|insomn|an[eä]mi|anémi|hepat|hépat|cirr|leuk|leuc|lymph|linf)"
)
# A text in which so few words are clinical at best is not looked at word by word.
_AT_BEST = 8
_THE_PATIENT = re.compile(r"\b(?:the|this|our|der|die|le|la|el) pa[tc]ient")
_SPEAKER = re.compile(
    r"(?:^|[\n\"])[ \t*#>]{0,8}(?:patient|pt|patientin|paciente|patiente|"
    r"paziente|patiënte?|pacjent(?:ka)?|doente|pasient|patienten)[ \t*]{0,3}:"
)
_OTHER_SPEAKER = re.compile(
    r"(?:^|[\n\"])[ \t*#>]{0,8}(?:doctor|dr|physician|nurse|clinician|arzt|ärztin|médecin|"
    r"médic[oa]|medico|dottor(?:e|essa)|doutora?|dokter|huisarts|lekarz|läkare|lege|læge)"
    r"[ \t*]{0,3}:"
)
# One clinical term in so many different words.
_DENSE = 8
_SPARSE = 14
# More different words than this, and no text is dense.
_MANY = _SPARSE * len(_CLINICAL)


def clinical_kinds(text: str) -> Steps[set[str]]:
    """The kinds of clinical record in normalised text. Linear, in memory that does not grow with
    it."""
    kinds: set[str] = set()
    words, distinct = yield from _words_of(text)
    if _CUES.isdisjoint(words):
        return kinds
    terms = len(words & _CLINICAL)
    if not words.isdisjoint(_NUMBERED) and (yield from has_match(_RECORD_NUMBER, text)):
        kinds.add("medical_record_number")
    if not terms and words.isdisjoint(_IDENTIFIED):
        return kinds
    yield from _coded_or_dosed(text, words, terms, kinds)
    if (yield from _is_consultation(text, words, terms, distinct)):
        kinds.add("consultation")
    if (yield from _is_note(text, words, terms, distinct)):
        kinds.add("clinical_note")
    return kinds


def _words_of(text: str) -> Steps[tuple[set[bytes], int]]:
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
        yield
    return words, most


def _folded(text: str) -> bytes:
    if not text.isascii():
        # Which of its two small letters a sigma gets depends on what follows, behind a cut or not.
        text = text.lower().replace("\u03c2", "\u03c3")
    return text.encode("utf-8", "replace").translate(_FOLD)


def _coded_or_dosed(text: str, words: set[bytes], terms: int, kinds: set[str]) -> Steps[None]:
    if terms >= 1 and not words.isdisjoint(_CODED) and (yield from has_match(_ICD10, text)):
        kinds.add("icd10")
    if terms >= 2 and not words.isdisjoint(_BIRTH) and (yield from has_match(_DATE, text)):
        kinds.add("dob_with_diagnosis")
    if not words.isdisjoint(_MEASURES) or terms >= 2:
        treated = not words.isdisjoint(_PATIENT) or not words.isdisjoint(_TREATED)
        somebody = not words.isdisjoint(_PERSON) or not words.isdisjoint(_PATIENT)
        if (treated or terms >= 4) and somebody and (yield from has_match(_DOSE, text)):
            kinds.add("dose")


def _is_consultation(text: str, words: set[bytes], terms: int, distinct: int) -> Steps[bool]:
    """Turns of a doctor and of a patient, or people talking of the body of one of them."""
    if not words.isdisjoint(_FIRST) and terms >= 4:
        if terms * _DENSE >= distinct:
            return True
        if not words.isdisjoint(_SECOND) and terms * _SPARSE >= distinct:
            return True
    if words.isdisjoint(_PATIENT | _CLINICIAN):
        return False
    patient = yield from has_match(_SPEAKER, text)
    other = yield from has_match(_OTHER_SPEAKER, text)
    if patient and other:
        return True
    return bool((patient or other) and (terms >= 1 or not words.isdisjoint(_THIRD)))


def _is_note(text: str, words: set[bytes], terms: int, distinct: int) -> Steps[bool]:
    """Prose of a record: a person, what the note says of them, and clinical matter."""
    if (yield from _is_short_note(text, words, terms, distinct)):
        return True
    told, record = len(words & _TOLD), len(words & _RECORD)
    third = not words.isdisjoint(_THIRD)
    if not words.isdisjoint(_PATIENT):
        loosely = told or not words.isdisjoint(_TOLD_LOOSELY)
        if (loosely and terms >= 1) or (record and terms >= 2):
            return True
        if third and (terms >= 2 or (yield from has_match(_THE_PATIENT, text))):
            return True
        return terms >= 4 and (yield from has_match(_AGED, text))
    dense = terms * _DENSE >= distinct
    if record >= 3 or (record >= 2 and terms >= 4 and dense):
        return True
    if dense and terms >= 4 and (third or not words.isdisjoint(_HISTORY)):
        return True
    if third and terms >= 2 and (yield from has_match(_AGED, text)):
        return True
    if terms >= 3 and not words.isdisjoint(_KIN) and not words.isdisjoint(_HISTORY):
        return third and dense
    return terms >= 3 and told >= 1 and dense and not words.isdisjoint(_PERSON)


def _is_short_note(text: str, words: set[bytes], terms: int, distinct: int) -> Steps[bool]:
    """In other languages than English: one patient or one aged person and clinical matter, without
    a verb that says so. Who asks means patients in general."""
    if distinct > _DENSE * (terms + _AT_BEST) or "?" in text:
        return False
    if words.isdisjoint(_PATIENT) and words.isdisjoint(_ABROAD):
        return False
    if not (
        not words.isdisjoint(_ONE_PATIENT)
        or (yield from has_match(_OF_AGE_ABROAD, text))
        or (yield from has_match(_ONE_OF_THEM, text))
    ):
        return False
    others = (word.decode("utf-8", "replace") for word in words - _CLINICAL)
    terms += sum(_CLINICAL_STEM.match(word) is not None for word in others)
    return terms >= 2 and terms * _DENSE >= distinct
