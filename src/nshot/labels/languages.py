"""Everyday nouns of five languages that are no English words, to tell that labels are not in English.

Letters do not tell: "perro, gato" is written like English. Words that English has too ("chat", "main", "pie",
"radio") are left out, and so are words that stand in names of species or dishes.
"""

from __future__ import annotations

_NOUNS = """
abeja aguila amarillo arbol arboles autobus avion azul ballena bicicleta blanco botella caballo carne
carretera cebolla cerdo cielo ciervo coche conejo cuchara cuchillo edificio elefante escuela espejo
flores fresa fuego gafas gallina ganso gato gatos guantes guitarra hoja hombre hormiga huevo iglesia
jirafa juguete lampara lapiz lechuga libro llave lluvia maleta manzana mariposa melocoton mochila
motocicleta mujer naranja nieve nube ordenador oso oveja pajaro paloma pantalon papel pelota perra perro
perros personas pescado platano plato playa pollo puente puerta queso raton reloj rojo sandia serpiente
silla taza teclado telefono tenedor tiburon tijeras tortuga tren vaca vaso ventana vestido zanahoria
zapato zapatos zorro

abeille aigle arbre assiette autobus avion baleine banane bateau bleu bouteille carotte cerf chats
chaussure chaussures chemise cheval chevre chien chienne chiens ciel ciseaux clavier cochon coq couteau
cuillere ecole eglise enfant etoile femme fenetre feu fleur fleurs foret fourchette fourmi fraise fromage
garcon guitare homme horloge jaune jouet lait laitue livre lune lunettes maison miroir montagne mouche
neige nuage oeuf oignon oiseau ordinateur pantalon pasteque personne personnes plage pluie poire poisson
pont poule renard requin riviere singe soleil souris tortue vache valise velo vert viande voiture
voitures

affe ameise apfel banane baum bett biene birne blatt blau bleistift blume blumen brille brucke bruecke
buch erdbeere fahrrad fenster feuer fisch flasche fleisch fliege flugzeug fluss frau gabel gans gebaude
gelb gruen grun handschuhe hase haus hemd himmel hirsch huhn hund hunde kaese kaninchen karotte kase
katze katzen kirche kirsche kleid koffer kuh lastwagen loeffel loewe loffel lowe madchen maedchen mann
menschen messer mond motorrad pferd rechner schaf schere schiff schildkroete schildkrote schlange
schluessel schlussel schmetterling schnee schuh schuhe schule schwarz schwein sonne spiegel spielzeug
strasse stuhl tastatur taube telefon tisch tuer tur uhr vogel wald wassermelone weiss wolke ziege zwiebel

aereo albero anatra anguria aquila arancia autobus balena bambina bambino bianco bicchiere bicicletta
bosco bottiglia camicia cani cappello carota cavallo cervo chiave chiesa chitarra cielo ciliegia cipolla
coltello coniglio cucchiaio donna elefante farfalla finestra fiore fiori fiume foglia forbici forchetta
foresta formaggio formica fragola fuoco gallina gatti gatto giallo giocattolo giraffa guanti lampada
lattuga letto libro lupo macchina maiale matita montagna motocicletta mucca nuvola occhiali orologio orso
palazzo pantaloni pecora persone pesce piatto piccione pioggia pomodoro ragazza ragazzo scarpa scarpe
scimmia scuola sedia serpente specchio spiaggia squalo strada tartaruga tastiera tavolo tazza telefono
topo treno uccello uomo uovo valigia vestito volpe zaino

abelha alface amarelo arvore aviao azul baleia bicicleta boi borboleta branco brinquedo cachorro cadeira
calca caminhao cao cavalo cebola cenoura cereja ceu chapeu chave chuva coelho colher computador copo
crianca escola espelho estrada estrela faca flor flores floresta fogo folha formiga galinha garfo garrafa
gato girafa homem igreja janela lapis laranja leite livro lua luvas macaco melancia menina menino mochila
montanha motocicleta mulher navio neve nuvem oculos onibus ovelha ovo passaro peixe pessoa pessoas pomba
porco praia predio preto queijo raposa rato relogio rua sapato sapatos tartaruga teclado telefone tesoura
trem tubarao urso vaca veado vermelho vestido violao xicara
"""  # Spanish, French, German, Italian, Portuguese

WORDS = frozenset(_NOUNS.split())
"""In small letters, without accents; a word with accents is told by these."""
