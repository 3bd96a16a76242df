"""What the English tasks are made of: opposites, past tenses, plurals, capitals, things by their kind, plain words.

All of it is common knowledge, written down for this package. Where several words are right, the first is the answer
and the others are aliases.
"""

OPPOSITES = """
hot,warm/cold,cool big,large/small,little,tiny fast,quick/slow happy,glad/sad,unhappy up/down left,wrong/right
day/night rich,wealthy/poor young,new/old hard/soft,easy open/closed,shut,close full/empty light/dark,heavy high/low
near,close/far early/late strong/weak wet/dry clean/dirty loud,noisy/quiet,silent,soft good/bad,evil true/false in/out
first/last long/short wide,broad/narrow thick/thin,slim cheap,inexpensive/expensive,dear easy,simple/difficult,hard
win,find/lose buy,purchase/sell love/hate begin,start/end,finish,stop push/pull inside/outside
above/below,beneath,under always/never north/south east/west alive,living/dead,deceased
same,identical,similar,alike/different deep/shallow sharp/blunt,dull sweet/sour,bitter asleep,sleeping/awake
ancient/modern,new accept/reject,refuse,decline arrive/depart,leave attack/defend before/after,behind borrow/lend
brave,courageous/cowardly,cowardice bright/dim,dark,dull calm/agitated,nervous,anxious,stormy,excited careful/careless
clever,smart,intelligent/stupid,foolish,dumb create/destroy cruel,mean,unkind/kind dangerous,unsafe/safe
enter/exit,leave even/odd,uneven exciting,interesting/boring,dull fail/succeed,pass few/many float/sink
forget/remember,recall freeze/melt,thaw friend/enemy,foe front/back,rear,behind generous/stingy,selfish,mean
gentle,smooth,soft/rough,harsh give/take,receive guilty/innocent heaven/hell horizontal/vertical hope/despair
import/export include/exclude increase/decrease,reduce laugh/cry,weep lazy/hardworking,diligent,active,industrious
male/female man/woman king/queen
"""
"""Pairs; a word of either side is asked for, and a word of the other is right."""

PAST = (
    """
walk/walked talk/talked jump/jumped play/played help/helped look/looked work/worked want/wanted ask/asked call/called
cook/cooked clean/cleaned open/opened watch/watched wash/washed finish/finished start/started turn/turned
paint/painted laugh/laughed kick/kicked pull/pulled push/pushed climb/climbed listen/listened answer/answered
rain/rained wait/waited need/needed learn/learned,learnt brush/brushed touch/touched visit/visited enjoy/enjoyed
stay/stayed follow/followed show/showed happen/happened remember/remembered return/returned point/pointed
cross/crossed fill/filled pick/picked order/ordered repair/repaired shout/shouted thank/thanked train/trained
count/counted burn/burned,burnt lift/lifted bark/barked melt/melted
""",
    """
stop/stopped plan/planned clap/clapped drop/dropped beg/begged hop/hopped rub/rubbed shop/shopped slip/slipped
nod/nodded grab/grabbed hug/hugged jog/jogged trip/tripped stir/stirred fit/fitted,fit chat/chatted wrap/wrapped
prefer/preferred admit/admitted try/tried cry/cried carry/carried study/studied hurry/hurried worry/worried
marry/married copy/copied dry/dried fry/fried reply/replied bury/buried tidy/tidied empty/emptied deny/denied
like/liked love/loved live/lived move/moved use/used bake/baked smile/smiled close/closed dance/danced hope/hoped
arrive/arrived decide/decided invite/invited save/saved taste/tasted change/changed share/shared notice/noticed
promise/promised breathe/breathed
""",
    """
go/went see/saw take/took eat/ate run/ran buy/bought think/thought give/gave come/came know/knew write/wrote
speak/spoke drive/drove sing/sang swim/swam teach/taught catch/caught bring/brought find/found lose/lost win/won
build/built sleep/slept feel/felt leave/left meet/met sell/sold tell/told stand/stood hold/held fly/flew draw/drew
grow/grew throw/threw break/broke choose/chose forget/forgot begin/began drink/drank ring/rang sit/sat fall/fell
wear/wore hide/hid ride/rode rise/rose fight/fought pay/paid say/said make/made keep/kept hear/heard send/sent
spend/spent lend/lent dig/dug hang/hung,hanged shoot/shot steal/stole freeze/froze bite/bit blow/blew shake/shook
wake/woke bend/bent feed/fed lead/led shine/shone,shined sink/sank,sunk spring/sprang,sprung strike/struck swear/swore
sweep/swept tear/tore weep/wept wind/wound understand/understood become/became seek/sought creep/crept stick/stuck
swing/swung
""",
)
"""Verbs with their past: those that take -ed, those that also change in writing, those that follow no rule."""

PLURALS = (
    """
cat/cats dog/dogs book/books car/cars tree/trees house/houses apple/apples chair/chairs table/tables pen/pens
cup/cups door/doors window/windows river/rivers bird/birds flower/flowers school/schools teacher/teachers
friend/friends letter/letters number/numbers garden/gardens horse/horses cow/cows pig/pigs ship/ships train/trains
road/roads hand/hands finger/fingers shoe/shoes shirt/shirts hat/hats coat/coats bag/bags lamp/lamps clock/clocks
picture/pictures song/songs game/games doctor/doctors farmer/farmers king/kings queen/queens day/days boy/boys
key/keys monkey/monkeys toy/toys piano/pianos radio/radios photo/photos video/videos roof/roofs chef/chefs
""",
    """
box/boxes fox/foxes bus/buses,busses glass/glasses class/classes dress/dresses dish/dishes brush/brushes wish/wishes
church/churches watch/watches match/matches bench/benches peach/peaches sandwich/sandwiches witch/witches
tomato/tomatoes potato/potatoes hero/heroes echo/echoes baby/babies city/cities lady/ladies party/parties story/stories
country/countries family/families puppy/puppies cherry/cherries berry/berries fly/flies army/armies enemy/enemies
factory/factories library/libraries butterfly/butterflies penny/pennies,pence memory/memories body/bodies
dictionary/dictionaries kiss/kisses tax/taxes branch/branches beach/beaches lunch/lunches bush/bushes crash/crashes
address/addresses princess/princesses secretary/secretaries university/universities hobby/hobbies
""",
    """
leaf/leaves knife/knives wife/wives life/lives wolf/wolves half/halves shelf/shelves thief/thieves loaf/loaves
calf/calves elf/elves self/selves man/men woman/women child/children foot/feet tooth/teeth goose/geese mouse/mice
louse/lice ox/oxen person/people,persons sheep/sheep deer/deer fish/fish,fishes moose/moose series/series
species/species aircraft/aircraft salmon/salmon crisis/crises analysis/analyses basis/bases thesis/theses
oasis/oases diagnosis/diagnoses hypothesis/hypotheses cactus/cacti,cactuses fungus/fungi,funguses
nucleus/nuclei phenomenon/phenomena criterion/criteria bacterium/bacteria datum/data medium/media,mediums
fireman/firemen policeman/policemen gentleman/gentlemen snowman/snowmen grandchild/grandchildren stepchild/stepchildren
housewife/housewives werewolf/werewolves bookshelf/bookshelves dormouse/dormice
""",
)
"""Nouns with their plural: those that take -s, those that take -es, those that follow no such rule."""

CAPITALS = """
France/Paris Germany/Berlin Italy/Rome Spain/Madrid Portugal/Lisbon England/London Scotland/Edinburgh Wales/Cardiff
Ireland/Dublin Austria/Vienna Greece/Athens Russia/Moscow Poland/Warsaw Hungary/Budapest Norway/Oslo Sweden/Stockholm
Denmark/Copenhagen Finland/Helsinki Belgium/Brussels Romania/Bucharest Bulgaria/Sofia Serbia/Belgrade Croatia/Zagreb
Slovenia/Ljubljana Slovakia/Bratislava Albania/Tirana Ukraine/Kyiv,Kiev Belarus/Minsk Lithuania/Vilnius Latvia/Riga
Estonia/Tallinn Iceland/Reykjavik,Reykjavík Malta/Valletta Cyprus/Nicosia Bosnia_and_Herzegovina/Sarajevo Japan/Tokyo
China/Beijing India/New_Delhi,Delhi Nepal/Kathmandu Pakistan/Islamabad Bangladesh/Dhaka Afghanistan/Kabul Iran/Tehran
Iraq/Baghdad Syria/Damascus Jordan/Amman Lebanon/Beirut Turkey/Ankara Saudi_Arabia/Riyadh Oman/Muscat Qatar/Doha
Armenia/Yerevan Georgia/Tbilisi Azerbaijan/Baku Uzbekistan/Tashkent Mongolia/Ulaanbaatar,Ulan_Bator South_Korea/Seoul
North_Korea/Pyongyang Thailand/Bangkok Vietnam/Hanoi Cambodia/Phnom_Penh Malaysia/Kuala_Lumpur Indonesia/Jakarta
Philippines/Manila Egypt/Cairo Libya/Tripoli Tunisia/Tunis Algeria/Algiers Morocco/Rabat Mali/Bamako Sudan/Khartoum
Ethiopia/Addis_Ababa Somalia/Mogadishu Kenya/Nairobi Uganda/Kampala Rwanda/Kigali Zambia/Lusaka Zimbabwe/Harare
Mozambique/Maputo Cameroon/Yaounde,Yaoundé Nigeria/Abuja Ghana/Accra Senegal/Dakar Canada/Ottawa Mexico/Mexico_City
Guatemala/Guatemala_City El_Salvador/San_Salvador Nicaragua/Managua Costa_Rica/San_Jose,San_José Panama/Panama_City
Cuba/Havana Jamaica/Kingston Haiti/Port-au-Prince Dominican_Republic/Santo_Domingo Colombia/Bogota,Bogotá
Venezuela/Caracas Ecuador/Quito Peru/Lima Brazil/Brasilia,Brasília Paraguay/Asuncion,Asunción Uruguay/Montevideo
Argentina/Buenos_Aires Chile/Santiago Australia/Canberra New_Zealand/Wellington
"""
"""Countries with their capital."""

KINDS = {
    "animal": """
dog cat horse tiger sheep snake rabbit monkey eagle whale cow pig goat lion bear wolf mouse duck frog shark bee
elephant giraffe zebra camel donkey squirrel otter seal penguin parrot owl crow swan trout salmon lizard turtle
spider ant butterfly octopus dolphin kangaroo fox deer hamster beaver""",
    "fruit": """
apple banana grape lemon cherry pear plum mango melon kiwi fig apricot pineapple strawberry raspberry blueberry papaya
grapefruit watermelon coconut pomegranate nectarine tangerine blackberry guava""",
    "color": """
red blue green yellow purple pink brown black white gray beige crimson turquoise scarlet maroon cyan magenta indigo""",
    "vehicle": """
car bus train truck bicycle boat plane ship taxi tram van motorcycle helicopter tractor scooter ferry ambulance canoe
yacht submarine minibus tricycle limousine lorry hovercraft""",
    "instrument": """
guitar piano violin drum flute trumpet harp cello clarinet saxophone banjo ukulele trombone tuba oboe accordion
xylophone harmonica bassoon mandolin tambourine""",
    "garment": """
shirt skirt coat jacket sock glove scarf sweater dress trousers jeans blouse vest cardigan raincoat pajamas mitten
apron suit stocking""",
}
"""Things by what they are."""

WORDS = """
apple table river house green light stone bread cloud horse music paper tiger ocean chair plant glass train smile dream
world beach queen snake storm grape lemon piano robot sugar water earth fruit ghost heart juice knife movie night radio
sheep spoon sword tooth uncle watch zebra garden window school winter summer market yellow orange purple basket bottle
button camera castle church circle coffee dinner doctor engine family farmer finger flower forest friend guitar hammer
island jacket kitten ladder letter monkey mother nature number office pencil planet pocket potato rabbit rocket silver
singer spider spring square street ticket tomato turtle valley violin wallet wisdom cat dog sun map box cup egg fish
bird tree moon star road door hand book ship farm rain snow wind gold salt milk lamp desk bell frog goat king leaf nest
rope seed wolf kitchen morning picture blanket chicken country diamond dolphin evening freedom giraffe holiday journey
library machine monster octopus penguin pyramid rainbow sandwich elephant mountain umbrella hospital computer birthday
chocolate
"""
"""Plain words, for lists and for counting letters."""

NAMES = "Tom Ana Ben Mia Sam Lucy Omar Nina Paul Rosa Liam Eva Jack Sara Leo Kate"
THINGS = "apples books coins pens eggs cards stamps marbles cookies balls shells toys tickets flowers stickers plums"
"""Who has what, in stories of numbers."""
