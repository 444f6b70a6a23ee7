"""Small talk and requests in other languages than English that name nobody, and frames that do.

Both written for this project. The first are what people say to an assistant first; without the
second the model would learn that nobody has a name where the words are not English.
"""

from __future__ import annotations

import random

from routers.train.names import words

# Greetings, thanks, answers and small requests by ISO 639-1 code, one after each bar.
GREETINGS: dict[str, str] = {
    "de": "Hallo|hallo|Hallo zusammen|Guten Morgen|Guten Tag|Guten Abend|Gute Nacht|Servus|Moin|"
    "Grüß Gott|Tschüss|Bis morgen!|Danke|Danke schön|Vielen Dank|Bitte|Bitte sehr|Ja|Nein|"
    "Genau.|Vielleicht.|Weiter.|Nochmal.|Entschuldigung|Kein Problem.|Wie geht's?|Wer bist du?|"
    "Was kannst du alles?|Wie viel Uhr ist es?|Erzähl mir eine Geschichte.|Mach einen Witz.|"
    "Schreib mir ein kurzes Gedicht über das Meer.|Übersetze den Text ins Deutsche.|"
    "Erkläre mir den Satz des Pythagoras.|Was bedeutet das Wort?|Wie backe ich ein Brot?|"
    "Schreibe ein Programm, das eine Datei liest.|Welche Farbe passt zu Blau?|"
    "Kannst du das kürzer sagen?|Ich verstehe die Aufgabe nicht.|"
    "Nenne drei Vorteile und zwei Nachteile.|Die Lampe in der Küche ist kaputt.|"
    "Wie kann ich mein Passwort ändern?|Meine Karte funktioniert nicht.|"
    "Was soll ich heute Abend kochen?|Wie wird das Wetter morgen?|"
    "Ich möchte im Sommer eine Reise ans Meer machen.|Gibt es eine bessere Lösung?|"
    "Der Vertrag läuft am Ende des Monats aus.|Mein Hund will nicht fressen.|"
    "Welche Bücher sind gut für Kinder?|Korrigiere die Fehler in diesem Brief.|"
    "Was ist der Sinn des Lebens?|Wie funktioniert ein Motor?|Stell mir eine Frage.",
    "fr": "Bonjour|bonjour|Bonjour à tous|Bonsoir|Bonne nuit|Bonne journée|Salut|Coucou|"
    "Ça va ?|Comment allez-vous ?|Au revoir|À demain !|Merci|Merci beaucoup|De rien|Oui|Non|"
    "Peut-être.|D'accord.|Encore.|S'il te plaît|S'il vous plaît|Pardon|Qui es-tu ?|"
    "Que sais-tu faire ?|Il est quelle heure ?|Raconte-moi une histoire.|Fais une blague.|"
    "Écris-moi un petit poème sur la mer.|Traduis le texte en français.|"
    "Explique-moi le théorème de Pythagore.|Que veut dire ce mot ?|Comment faire du pain ?|"
    "Écris un programme qui lit un fichier.|Quelle couleur va avec le bleu ?|"
    "Peux-tu le dire plus court ?|Je ne comprends pas l'exercice.|Donne trois avantages.|"
    "Comment changer mon mot de passe ?|Ma carte ne marche pas.|Que cuisiner ce soir ?|"
    "Quel temps fera-t-il demain ?|Corrige les fautes de cette lettre.",
    "es": "Hola|hola|¡Hola!|Hola a todos|Buenos días|Buenas tardes|Buenas noches|¿Qué tal?|"
    "¿Cómo está usted?|Adiós|¡Hasta mañana!|Gracias|Muchas gracias|De nada|Sí|No sé.|Tal vez.|"
    "De acuerdo.|Otra vez.|Por favor|Perdón|¿Quién eres?|¿Qué sabes hacer?|¿Qué hora es ya?|"
    "Cuéntame una historia.|Cuenta un chiste.|Escríbeme un poema corto sobre el mar.|"
    "Traduce el texto al español.|Explícame el teorema de Pitágoras.|¿Qué significa la palabra?|"
    "¿Cómo se hace el pan?|Escribe un programa que lea un archivo.|"
    "¿Qué color combina con el azul?|¿Puedes decirlo más corto?|No entiendo el ejercicio.|"
    "Dime tres ventajas.|¿Cómo cambio mi contraseña?|Mi tarjeta no funciona.|"
    "¿Qué cocino esta noche?|¿Qué tiempo hará mañana?|Corrige los errores de esta carta.",
    "it": "Ciao|ciao|Ciao a tutti|Buongiorno|Buon giorno|Buonasera|Buona notte|Salve|Come va?|"
    "Come sta?|Arrivederci|A domani!|Grazie|Grazie mille|Prego|Sì|Forse.|Va bene.|Ancora.|"
    "Per favore|Scusa|Chi sei?|Cosa sai fare?|Che ora è?|Raccontami una storia.|"
    "Dimmi una barzelletta.|Scrivimi una breve poesia sul mare.|Traduci il testo in italiano.|"
    "Spiegami il teorema di Pitagora.|Cosa significa la parola?|Come si fa il pane?|"
    "Scrivi un programma che legge un file.|Puoi dirlo più in breve?|Non capisco l'esercizio.|"
    "Come cambio la mia password?|La mia carta non funziona.|Cosa cucino stasera?|"
    "Che tempo farà domani?|Correggi gli errori di questa lettera.",
    "pt": "Olá|olá|Oi|Oi, tudo bem?|Bom dia|Boa tarde|Boa noite|E aí?|Tchau|Até amanhã!|"
    "Obrigado|Obrigada|Muito obrigado|De nada|Sim|Não|Talvez.|Está bem.|Outra vez.|Por favor|"
    "Desculpe|Quem é você?|O que você sabe fazer?|Que horas são?|Conte uma história.|"
    "Conta uma piada.|Escreva um poema curto sobre o mar.|Traduza o texto para português.|"
    "Explique o teorema de Pitágoras.|O que significa a palavra?|Como se faz pão?|"
    "Escreva um programa que lê um arquivo.|Não entendo o exercício.|"
    "Como mudo a minha senha?|Meu cartão não funciona.|O que cozinho hoje?",
    "nl": "Hallo allemaal|Hoi|Goedemorgen|Goedemiddag|Goedenavond|Dag|Doei|Tot morgen!|Bedankt|"
    "Dank je|Dank je wel|Graag gedaan|Ja|Nee|Misschien.|Goed.|Nog een keer.|Alsjeblieft|Sorry|"
    "Hoe gaat het?|Wie ben je?|Wat kun je?|Hoe laat is het?|Vertel me een verhaal.|"
    "Vertel een grap.|Schrijf een kort gedicht over de zee.|Vertaal de tekst naar het Nederlands.|"
    "Leg me de stelling van Pythagoras uit.|Hoe bak ik een brood?|Ik snap de opdracht niet.|"
    "Hoe verander ik mijn wachtwoord?|Mijn kaart werkt niet.|Wat zal ik vanavond koken?",
    "sv": "Hej|hej|Hejsan|Hej på dig|God morgon|God kväll|God natt|Hej då|Tack|Tack så mycket|"
    "Varsågod|Ja|Nej|Kanske.|Hur mår du?|Vem är du?|Vad kan du göra?|Vad är klockan?|"
    "Berätta en historia.|Skriv en kort dikt om havet.|Översätt texten till svenska.|"
    "Hur bakar man bröd?|Jag förstår inte uppgiften.|Mitt kort fungerar inte.",
    "da": "Hej|Hej med dig|Godmorgen|God aften|Farvel|Tak|Mange tak|Ja|Nej|Måske.|"
    "Hvordan går det?|Hvem er du?|Hvad er klokken?|Fortæl mig en historie.|"
    "Skriv et kort digt om havet.|Oversæt teksten til dansk.|Jeg forstår ikke opgaven.",
    "nb": "Hei|Hei der|God morgen|God kveld|Ha det|Takk|Tusen takk|Ja|Nei|Kanskje.|"
    "Hvordan går det?|Hvem er du?|Hva er klokka?|Fortell meg en historie.|"
    "Skriv et kort dikt om havet.|Oversett teksten til norsk.|Jeg forstår ikke oppgaven.",
    "fi": "Hei|Moi|Terve|Hyvää huomenta|Hyvää iltaa|Näkemiin|Kiitos|Kiitos paljon|Kyllä|Ei|"
    "Ehkä.|Mitä kuuluu?|Kuka sinä olet?|Paljonko kello on?|Kerro minulle tarina.|"
    "Kirjoita lyhyt runo merestä.|Käännä teksti suomeksi.|En ymmärrä tehtävää.",
    "pl": "Cześć|cześć|Dzień dobry|Dobry wieczór|Dobranoc|Do widzenia|Do jutra!|Dziękuję|"
    "Bardzo dziękuję|Proszę|Tak|Nie|Może.|Przepraszam|Jak się masz?|Kim jesteś?|Co potrafisz?|"
    "Która jest godzina?|Opowiedz mi historię.|Opowiedz dowcip.|Napisz krótki wiersz o morzu.|"
    "Przetłumacz tekst na polski.|Jak upiec chleb?|Nie rozumiem zadania.|Moja karta nie działa.",
    "cs": "Ahoj|ahoj|Dobrý den|Dobré ráno|Dobrý večer|Dobrou noc|Na shledanou|Děkuji|Díky|"
    "Prosím|Ano|Ne|Možná.|Jak se máš?|Kdo jsi?|Kolik je hodin?|Vyprávěj mi příběh.|"
    "Napiš krátkou báseň o moři.|Přelož text do češtiny.|Nerozumím tomu úkolu.",
    "sk": "Ahoj|Dobrý deň|Dobré ráno|Dobrý večer|Dovidenia|Ďakujem|Prosím|Áno|Nie|Možno.|"
    "Ako sa máš?|Kto si?|Koľko je hodín?|Napíš krátku báseň o mori.|Nerozumiem úlohe.",
    "hu": "Szia|Sziasztok|Jó reggelt|Jó napot|Jó estét|Viszlát|Köszönöm|Kérem|Igen|Nem|Talán.|"
    "Hogy vagy?|Ki vagy te?|Hány óra van?|Mesélj egy történetet.|Írj egy rövid verset a tengerről.",
    "ro": "Salut|Bună|Bună ziua|Bună dimineața|Bună seara|La revedere|Mulțumesc|Te rog|Da|Nu|"
    "Poate.|Ce mai faci?|Cine ești?|Cât este ceasul?|Spune-mi o poveste.|"
    "Scrie o poezie scurtă despre mare.",
    "hr": "Bok|Dobar dan|Dobro jutro|Dobra večer|Doviđenja|Hvala|Hvala lijepa|Molim|Da|Ne|"
    "Možda.|Kako si?|Tko si ti?|Koliko je sati?|Ispričaj mi priču.|Napiši kratku pjesmu o moru.",
    "tr": "Merhaba|merhaba|Selam|Günaydın|İyi günler|İyi akşamlar|İyi geceler|Hoşça kal|"
    "Teşekkürler|Teşekkür ederim|Lütfen|Evet|Hayır|Belki.|Tamam|Nasılsın?|Sen kimsin?|"
    "Neler yapabilirsin?|Saat kaç?|Bana bir hikâye anlat.|Bir fıkra anlat.|"
    "Deniz hakkında kısa bir şiir yaz.|Metni Türkçeye çevir.|Ekmek nasıl yapılır?|"
    "Soruyu anlamadım.|Kartım çalışmıyor.",
    "ru": "Привет|привет|Здравствуйте|Доброе утро|Добрый день|Добрый вечер|Спокойной ночи|"
    "До свидания|Пока|Спасибо|Большое спасибо|Пожалуйста|Да|Нет|Может быть.|Хорошо.|Извините|"
    "Как дела?|Кто ты?|Что ты умеешь?|Который час?|Расскажи мне историю.|Расскажи анекдот.|"
    "Напиши короткое стихотворение о море.|Переведи текст на русский.|Как испечь хлеб?|"
    "Я не понимаю задачу.|Моя карта не работает.|Какая завтра погода?",
    "uk": "Привіт|Добрий день|Доброго ранку|Добрий вечір|До побачення|Дякую|Дуже дякую|"
    "Будь ласка|Так|Ні|Можливо.|Як справи?|Хто ти?|Котра година?|Розкажи мені історію.|"
    "Напиши короткий вірш про море.",
    "bg": "Здравей|Здравейте|Добро утро|Добър ден|Добър вечер|Довиждане|Благодаря|Моля|Да|Не|"
    "Може би.|Как си?|Кой си ти?|Колко е часът?|Разкажи ми история.",
    "el": "Γεια|Γεια σας|Γεια σου|Καλημέρα|Καλησπέρα|Καληνύχτα|Αντίο|Ευχαριστώ|Παρακαλώ|Ναι|Όχι|"
    "Ίσως.|Τι κάνεις;|Ποιος είσαι;|Τι ώρα είναι;|Πες μου μια ιστορία.|"
    "Γράψε ένα μικρό ποίημα για τη θάλασσα.",
    "id": "Halo|Hai|Selamat pagi|Selamat siang|Selamat malam|Sampai jumpa|Terima kasih|"
    "Sama-sama|Tolong|Ya|Tidak|Mungkin.|Apa kabar?|Siapa kamu?|Jam berapa sekarang?|"
    "Ceritakan sebuah cerita.|Tulis puisi pendek tentang laut.",
    "vi": "Xin chào|Chào bạn|Chào buổi sáng|Tạm biệt|Cảm ơn|Cảm ơn bạn|Vâng|Không|Có thể.|"
    "Bạn khỏe không?|Bạn là ai?|Mấy giờ rồi?|Kể cho tôi một câu chuyện.|"
    "Viết một bài thơ ngắn về biển.",
    "sw": "Habari|Jambo|Habari za asubuhi|Asante|Asante sana|Tafadhali|Ndiyo|Hapana|Kwaheri|"
    "Wewe ni nani?|Saa ngapi sasa?|Niambie hadithi.",
    "zu": "Sawubona|Sanibonani|Unjani?|Ngiyabonga|Yebo|Cha|Hamba kahle",
    "ar": "مرحبا|أهلا|السلام عليكم|صباح الخير|مساء الخير|شكرا|شكرا جزيلا|من فضلك|نعم|لا|كيف حالك؟|"
    "من أنت؟|كم الساعة؟|احك لي قصة.",
    "he": "שלום|בוקר טוב|ערב טוב|תודה|תודה רבה|בבקשה|כן|לא|מה שלומך?|מי אתה?|מה השעה?",
    "hi": "नमस्ते|सुप्रभात|धन्यवाद|शुक्रिया|कृपया|हाँ|नहीं|आप कैसे हैं?|तुम कौन हो?|कितने बजे हैं?",
    "ja": "こんにちは|おはよう|おはようございます|"
    "こんばんは|さようなら|ありがとう|ありがとうございます|はい|いいえ|"
    "お願いします|元気ですか？|あなたは誰ですか？|今何時ですか？",
    "ko": "안녕하세요|안녕|좋은 아침|감사합니다|고마워요|"
    "네|아니요|부탁합니다|잘 지내세요?|누구세요?|지금 몇 시예요?",
    "zh": "你好|您好|早上好|晚上好|再见|谢谢|谢谢你|请|"
    "是|不是|好的|你好吗？|你是谁？|现在几点？|给我讲个故事。",
    "th": "สวัสดี|สวัสดีครับ|ขอบคุณ|ใช่|ไม่|คุณเป็นใคร",
}
# Requests to an assistant, as in the frames below, but about nobody.
REQUESTS: dict[str, str] = {
    "de": "Schreibe eine E-Mail an den Vermieter wegen der Heizung.|Erinnere mich daran, die "
    "Blumen zu gießen.|Formuliere eine Beschwerde an die Bahn.|Was kann ich einer Freundin "
    "schenken, die gern liest?|Fasse den Text in einem Satz zusammen.|Wie schreibe ich eine gute "
    "Bewerbung?|Der Drucker druckt nur leere Seiten.|Warum schlafen Katzen so viel?|Nenne mir "
    "fünf Städte am Wasser.|Wie viele Sekunden hat eine Woche?|Kannst du mir den Unterschied "
    "zwischen Haben und Sein erklären?|Welche Steuern muss ein kleiner Laden zahlen?|Plane ein "
    "gesundes Frühstück für vier Personen.|Gibt es ein anderes Wort für Freude?|Die Antwort "
    "war gut, aber zu lang.|Ordne die Wörter nach dem Alphabet.",
    "fr": "Écris un courriel au propriétaire à propos du chauffage.|Rappelle-moi d'arroser les "
    "plantes.|Que puis-je offrir à une amie qui aime lire ?|Résume le texte en une seule "
    "phrase.|Comment rédiger une bonne lettre de motivation ?|L'imprimante ne sort que des "
    "pages vides.|Pourquoi les chats dorment-ils autant ?|Combien de secondes y a-t-il dans "
    "une semaine ?|Quels impôts paie un petit commerce ?|Prépare un petit déjeuner sain pour "
    "quatre personnes.|La réponse était bonne, mais trop longue.|Range les mots par ordre "
    "alphabétique.",
    "es": "Escribe un correo al casero sobre la calefacción.|Recuérdame regar las plantas.|¿Qué le "
    "regalo a una amiga que lee mucho?|Resume el texto en una sola frase.|¿Cómo se redacta una "
    "buena carta de presentación?|La impresora solo saca hojas vacías.|¿Por qué duermen tanto "
    "los gatos?|¿Cuántos segundos tiene una semana?|¿Qué impuestos paga una tienda pequeña?|"
    "Prepara un desayuno sano para cuatro personas.|La respuesta era buena, pero demasiado "
    "larga.|Ordena las palabras por orden alfabético.",
    "it": "Scrivi una mail al padrone di casa per il riscaldamento.|Ricordami di annaffiare le "
    "piante.|Cosa regalo a un'amica che legge molto?|Riassumi il testo in una sola riga.|Come "
    "si scrive una buona lettera di presentazione?|La stampante stampa solo pagine vuote.|"
    "Perché i gatti dormono così tanto?|Quanti secondi ci sono in una settimana?|Quali tasse "
    "paga un piccolo negozio?|Prepara una colazione sana per quattro persone.|La risposta era "
    "buona, ma troppo lunga.|Metti le parole in ordine alfabetico.",
    "pt": "Escreva um e-mail ao senhorio sobre o aquecimento.|Lembra-me de regar as plantas.|O que "
    "ofereço a uma amiga que gosta de ler?|Resuma o texto numa só linha.|Como se escreve uma "
    "boa carta de apresentação?|A impressora só tira folhas vazias.|Por que os gatos dormem "
    "tanto?|Quantos segundos tem uma semana?|Que impostos paga uma loja pequena?|Prepare um "
    "pequeno-almoço saudável para quatro pessoas.|A resposta era boa, mas longa demais.|Ordena "
    "as palavras por ordem alfabética.",
    "nl": "Schrijf een mail aan de huisbaas over de verwarming.|Herinner me eraan de planten water "
    "te geven.|Wat geef ik een vriendin die graag leest?|Maak een samenvatting van de tekst.|"
    "Hoe schrijf ik een goede brief?|De printer geeft alleen lege bladen.|Waarom slapen katten "
    "zo veel?|Hoeveel seconden heeft een week?|Welke belasting betaalt een kleine winkel?|"
    "Bedenk een gezond ontbijt voor vier personen.|Het antwoord was goed, maar te lang.|Zet de "
    "woorden op alfabet.",
    "pl": "Napisz maila do właściciela mieszkania o ogrzewaniu.|Przypomnij mi o podlaniu kwiatów.|"
    "Co kupić koleżance, która lubi czytać?|Skróć ten tekst do jednego zdania.|Jak napisać dobry "
    "list?|Drukarka drukuje tylko puste strony.|Dlaczego koty tak dużo śpią?|Ile sekund ma "
    "tydzień?|Jakie podatki płaci mały sklep?|Zaplanuj zdrowe śniadanie dla czterech osób.|"
    "Odpowiedź była dobra, ale za długa.|Ułóż słowa w kolejności alfabetycznej.",
    "sv": "Skriv ett mejl till hyresvärden om värmen.|Påminn mig om att vattna blommorna.|Vad ska "
    "jag ge en vän som gillar att läsa?|Korta ner texten till en mening.|Hur skriver man ett "
    "bra brev?|Skrivaren skriver bara ut tomma sidor.|Varför sover katter så mycket?|Hur många "
    "sekunder går det på en vecka?|Vilka skatter betalar en liten butik?|Planera en nyttig "
    "frukost för fyra personer.|Svaret var bra, men för långt.|Ordna orden i bokstavsordning.",
    "tr": "Isıtma hakkında ev sahibine bir e-posta yaz.|Çiçekleri sulamayı bana hatırlat.|Okumayı "
    "seven bir arkadaşa ne alınır?|Metni tek cümleye indir.|İyi bir mektup nasıl yazılır?|"
    "Yazıcı yalnızca boş sayfa basıyor.|Kediler neden bu kadar çok uyur?|Bir haftada kaç "
    "saniye vardır?|Küçük bir dükkân hangi vergileri öder?|Dört kişi için sağlıklı bir "
    "kahvaltı hazırla.|Cevap güzeldi ama çok uzundu.|Kelimeleri alfabetik sıraya koy.",
    "ru": "Напиши письмо хозяину квартиры об отоплении.|Напомни мне полить цветы.|Что подарить "
    "подруге, которая любит читать?|Сократи текст до одной фразы.|Как написать хорошее письмо?|"
    "Принтер печатает только пустые листы.|Почему кошки так много спят?|Сколько секунд в "
    "неделе?|Какие налоги платит маленький магазин?|Придумай полезный завтрак на четверых.|"
    "Ответ был хороший, но слишком длинный.|Расставь слова по алфавиту.",
}
# Frames as in `routers.train.frames`.
PERSONAL: tuple[str, ...] = (
    # German
    "Hallo, hier ist {person} aus {city}.",
    "Herr {last} hat heute angerufen und bittet um Rückruf.",
    "Frau {last} möchte ihren Termin verschieben.",
    "Wir haben {person} zum Geburtstag eingeladen.",
    "Meine Anschrift lautet {address}.",
    "Schreib {first} eine Nachricht, dass ich später komme.",
    "{person}, geboren am {date}, wohnhaft in {city}.",
    "Mit freundlichen Grüßen\n{person}",
    "Sehr geehrter Herr {last},\nvielen Dank für Ihre Bewerbung.",
    "Liebe Frau {last}, anbei finden Sie die Unterlagen.",
    "Mein Chef {person} ist immer unzufrieden mit der Arbeit.",
    "Meine Schwester {first} zieht bald nach {city}.",
    "Der Vertrag wurde mit {person} aus {city} geschlossen.",
    "Der Patient {last} ist {age} Jahre alt.",
    # French
    "Bonjour, ici {person} de {city}.",
    "Monsieur {last} a appelé ce matin et demande qu'on le rappelle.",
    "Madame {last} voudrait déplacer son rendez-vous.",
    "Mon adresse est la suivante : {address}.",
    "{person}, né le {date} à {city}.",
    "Cordialement,\n{person}",
    "Cher Monsieur {last},\nje vous remercie de votre lettre.",
    "Mon chef {person} n'est jamais content du travail.",
    "Ma sœur {first} va bientôt vivre à {city}.",
    "Dis à {first} que je serai en retard.",
    "Le contrat a été signé avec {person}.",
    # Spanish
    "Hola, soy {person}, de {city}.",
    "El señor {last} llamó esta mañana y pide que le llamen.",
    "La señora {last} quiere cambiar su cita.",
    "Mi dirección es {address}.",
    "{person}, nacido el {date} en {city}.",
    "Atentamente,\n{person}",
    "Estimado señor {last}:\nle agradezco su carta.",
    "Mi jefe {person} nunca está contento con el trabajo.",
    "Mi hermana {first} se va a vivir a {city}.",
    "Dile a {first} que llegaré tarde.",
    "El contrato se firmó con {person}.",
    # Italian
    "Salve, sono {person} di {city}.",
    "Il signor {last} ha chiamato stamattina.",
    "La signora {last} vorrebbe spostare l'appuntamento.",
    "Il mio indirizzo è {address}.",
    "Cordiali saluti,\n{person}",
    "Il mio capo {person} non è mai contento del lavoro.",
    "Mia sorella {first} va a vivere a {city}.",
    "Di' a {first} che arrivo tardi.",
    "Il contratto è stato firmato con {person}.",
    # Portuguese
    "Olá, aqui é {person}, de {city}.",
    "O senhor {last} ligou hoje de manhã.",
    "A dona {last} quer mudar a consulta.",
    "O meu endereço é {address}.",
    "Atenciosamente,\n{person}",
    "O meu chefe {person} nunca está contente com o trabalho.",
    "A minha irmã {first} vai morar em {city}.",
    "Diz à {first} que eu chego tarde.",
    # Dutch
    "Goedendag, u spreekt met {person} uit {city}.",
    "Meneer {last} heeft vanochtend gebeld.",
    "Mevrouw {last} wil haar afspraak verzetten.",
    "Het adres is {address}.",
    "Met vriendelijke groet,\n{person}",
    "Mijn baas {person} is nooit tevreden over het werk.",
    "Mijn zus {first} gaat binnenkort in {city} wonen.",
    # Polish, Czech
    "Dzień dobry, tu {person} z {city}.",
    "Pan {last} dzwonił dziś rano.",
    "Mój adres to {address}.",
    "Moja siostra {first} przeprowadza się do {city}.",
    "Z poważaniem,\n{person}",
    "Dobrý den, tady {person} z {city}.",
    "Pan {last} dnes ráno volal.",
    # Swedish, Danish, Norwegian, Finnish
    "Hej, det här är {person} från {city}.",
    "Herr {last} ringde i morse.",
    "Min adress är {address}.",
    "Min syster {first} flyttar snart till {city}.",
    "Med vänlig hälsning\n{person}",
    "Hej, det er {person} fra {city}.",
    "Min chef {person} er aldrig tilfreds.",
    "Terveisin {person}, {city}",
    # Turkish, Romanian, Hungarian, Indonesian
    "Merhaba, ben {person}, {city} şehrinden yazıyorum.",
    "Sayın {last}, mektubunuz için teşekkür ederiz.",
    "Adresim {address}.",
    "Kız kardeşim {first} yakında taşınıyor.",
    "Bună, sunt {person} din {city}.",
    "Domnul {last} a sunat azi dimineață.",
    "Üdvözlettel,\n{person}",
    "Halo, saya {person} dari {city}.",
    "Alamat saya {address}.",
    # Russian, Ukrainian, Bulgarian
    "Здравствуйте, это {cyrillic}.",
    "Господин {cyrillic} звонил сегодня утром.",
    "Мы пригласили на ужин {cyrillic} и всю семью.",
    "Мой адрес: {address}.",
    "С уважением,\n{cyrillic}",
    "Мой начальник {cyrillic} вечно недоволен работой.",
    "{cyrillic}, дата рождения {date}.",
    "Договор подписала {cyrillic}.",
    "Врач записал: больной {cyrillic}, {age} лет.",
    "Добрий день, мене звати {cyrillic}.",
    "Лист від {cyrillic} прийшов учора.",
    "Здравейте, аз съм {cyrillic}.",
    "Директорът {cyrillic} не отговаря на писмата.",
    # What an assistant is asked about people.
    "Schreibe eine E-Mail an {person} wegen der offenen Rechnung.",
    "Erinnere mich morgen daran, {first} {last} anzurufen.",
    "Formuliere ein Zeugnis für {person}, die bei uns im Lager gearbeitet hat.",
    "Fasse zusammen, was {last} und {last} gestern besprochen haben.",
    "Was soll ich {first} zum Geburtstag schenken?",
    "Weißt du, ob {person} noch in {city} arbeitet?",
    "Écris un courriel à {person} au sujet du loyer en retard.",
    "Rappelle-moi d'appeler {person} demain matin.",
    "Rédige une lettre de recommandation pour {person}.",
    "Que puis-je offrir à {first} pour son anniversaire ?",
    "Résume ce que {person} a dit hier à {first}.",
    "Est-ce que {person} travaille encore à {city} ?",
    "Escribe un correo a {person} sobre el alquiler atrasado.",
    "Recuérdame llamar a {person} mañana por la mañana.",
    "Redacta una carta de recomendación para {person}.",
    "¿Qué le puedo regalar a {first} por su cumpleaños?",
    "Resume lo que {person} le contó ayer a {first}.",
    "¿Sabes si {person} todavía trabaja en {city}?",
    "Scrivi una mail a {person} per l'affitto in ritardo.",
    "Ricordami di chiamare {person} domani mattina.",
    "Scrivi una lettera di referenze per {person}.",
    "Cosa posso regalare a {first} per il compleanno?",
    "Sai se {person} lavora ancora a {city}?",
    "Escreva um e-mail para {person} sobre o aluguel atrasado.",
    "Lembra-me de ligar a {person} amanhã de manhã.",
    "Escreve uma carta de recomendação para {person}.",
    "O que posso oferecer à {first} nos anos?",
    "Sabes se {person} ainda trabalha em {city}?",
    "Schrijf een mail aan {person} over de achterstallige huur.",
    "Herinner me eraan {person} morgen te bellen.",
    "Schrijf een aanbevelingsbrief voor {person}.",
    "Wat kan ik {first} voor haar verjaardag geven?",
    "Weet je of {person} nog in {city} werkt?",
    "Napisz maila do {person} w sprawie zaległego czynszu.",
    "Przypomnij mi, żeby jutro zadzwonić do {person}.",
    "Co mogę podarować {first} na urodziny?",
    "Czy {person} nadal pracuje w {city}?",
    "Napiš e-mail pro {person} kvůli nájmu.",
    "Skriv ett mejl till {person} om den sena hyran.",
    "Påminn mig om att ringa {person} i morgon.",
    "Vad kan jag ge {first} i present?",
    "Vet du om {person} fortfarande jobbar i {city}?",
    "Skriv en mail til {person} om huslejen.",
    "Kirjoita sähköposti henkilölle {person} vuokrasta.",
    "Geciken kira için {person} adlı kişiye bir e-posta yaz.",
    "Yarın {person} ile konuşmayı bana hatırlat.",
    "{first} için doğum gününde ne alabilirim?",
    "{person} hâlâ {city} ofisinde mi çalışıyor?",
    "Scrie un e-mail către {person} despre chirie.",
    "Tulis surel kepada {person} tentang sewa.",
    "Напиши письмо {cyrillic} об оплате аренды.",
    "Напомни мне завтра позвонить: {cyrillic}.",
    "Составь характеристику на сотрудника {cyrillic}.",
    "Что подарить на день рождения, если её зовут {cyrillic}?",
    "{cyrillic} ещё работает в этой фирме?",
    "Перескажи, что вчера говорил {cyrillic}.",
)
HIS = words(
    "Александр Дмитрий Сергей Андрей Алексей Николай Михаил Владимир Иван Павел Егор Максим Борис "
    "Виктор Олег Юрий Константин Фёдор Глеб Тарас Богдан Димитър Милош Рустам Тимур"
)
HER = words(
    "Анна Мария Ольга Елена Наталья Ирина Татьяна Екатерина Светлана Дарья Людмила Галина Софья "
    "Полина Вера Надежда Оксана Ксения Марина Юлия Алина Зоя Йордана Гульнара"
)
FAMILIES = words(
    "Иванов Петров Смирнов Кузнецов Попов Васильев Соколов Михайлов Новиков Фёдоров Морозов Волков "
    "Алексеев Лебедев Семёнов Егоров Павлов Козлов Степанов Николаев Орлов Андреев Макаров Никитин "
    "Захаров Зайцев Соловьёв Борисов Яковлев Григорьев Воробьёв Тарасов Беляев Комаров Димитров"
)


def cyrillic(rng: random.Random) -> str:
    """A person in Russian letters."""
    if rng.random() < 0.5:
        return f"{rng.choice(HIS)} {rng.choice(FAMILIES)}"
    return f"{rng.choice(HER)} {rng.choice(FAMILIES)}а"
