"""Words that clusters are named with, where a person gives none."""

from __future__ import annotations

from nshot.decision.background import EVERYDAY

# What photographs, drawings and scans are of, beside the things of every day.
_MORE = """
    beach, mountain, forest, lake, river, waterfall, ocean, desert, snow, sunset, sky, clouds, night sky,
    moon, rain, fog, field, garden, park, path, road, bridge, railway, city skyline, village, street,
    market, castle, church, temple, mosque, skyscraper, office, classroom, kitchen, bathroom, bedroom,
    living room, restaurant, shop, warehouse, factory, construction site, harbour, airport, train station,
    stadium, playground, farm, barn, greenhouse, swimming pool, museum, library, theatre, statue,
    fountain, ruins, cemetery, cave, island, baby, child, boy, girl, family, crowd, portrait, face, hand,
    wedding, birthday party, concert, dancing, running, swimming, climbing, football, basketball, tennis,
    baseball, golf, cycling, skiing, surfing, skateboarding, fishing, hiking, camping, picnic, parade,
    protest, soldier, police officer, doctor, chef, goat, donkey, camel, deer, moose, fox, wolf, tiger,
    leopard, giraffe, zebra, hippopotamus, rhinoceros, kangaroo, koala, panda, squirrel, hedgehog, bat,
    rat, hamster, seal, dolphin, whale, shark, octopus, jellyfish, crab, lobster, snail, shell, coral,
    lizard, crocodile, ant, beetle, fly, dragonfly, caterpillar, moth, scorpion, eagle, owl, parrot,
    penguin, swan, goose, pigeon, sparrow, peacock, flamingo, ostrich, rooster, turkey, rose, tulip,
    sunflower, daisy, orchid, cactus, palm tree, pine tree, leaf, grass, moss, fern, bamboo, vine,
    bouquet, potted plant, seed, wood, stone, sand, metal, glass, fabric, leather, paper, plastic, brick
    wall, fire, smoke, ice, water, mud, rust, crack, scratch, dent, broken glass, stain, mould, hamburger,
    hot dog, french fries, taco, burrito, sushi, ramen, noodles, pasta, rice, curry, steak, roast meat,
    sausage, bacon, fried chicken, seafood, shrimp, omelette, pancakes, waffle, donut, croissant, cookie,
    pie, apple pie, chocolate, candy, ice cream cone, milk, juice, tea, beer, cocktail, fruit, vegetable,
    tomato, potato, carrot, onion, pepper, corn, pumpkin, cucumber, lettuce, broccoli, garlic, lemon,
    strawberry, grapes, pineapple, watermelon, mango, avocado, guacamole, paella, nuts, honey, spices,
    T-shirt, shirt, sweater, hoodie, coat, jeans, shorts, skirt, suit, pyjamas, underwear, swimsuit,
    socks, sneakers, sandals, high heels, slippers, scarf, cap, helmet, handbag, wallet, purse,
    sunglasses, earrings, bracelet, perfume, lipstick, shampoo, soap, cream, medicine, syringe,
    stethoscope, X-ray of a chest, X-ray of teeth, X-ray of a spine, X-ray of a bone, brain scan,
    micrograph, cells, crystal, fibre, circuit board, computer, computer mouse, monitor, printer, tablet,
    hard disk, cable, battery, light bulb, loudspeaker, radio, smartphone, fan, washing machine, microwave
    oven, kettle, toaster, blender, pan, pot, jar, can, barrel, bucket, crate, shopping cart, wheelchair,
    stroller, scooter, tractor, excavator, crane, fire engine, ambulance, police car, taxi, van, pickup
    truck, sports car, vintage car, racing car, tram, subway, sailboat, yacht, canoe, submarine, cargo
    ship, rocket, satellite, balloon in the sky, parachute, drone, gun, sword, shield, coin, banknote,
    stamp, map, diagram, chart, screenshot, text, handwriting, document, receipt, menu, business card,
    logo, barcode, calendar, painting, drawing, sketch, cartoon, comic, anime, graffiti, tattoo, mosaic,
    sculpture, mask of wood, puppet, origami, pottery, embroidery, film poster, album cover, chess,
    playing cards, dice, puzzle, board game, video game, fireworks, Christmas tree, gift, flag in the
    wind, dragon, robot
"""

NAMES: tuple[str, ...] = tuple(
    dict.fromkeys((*EVERYDAY, *(" ".join(word.split()) for word in _MORE.split(","))))
)
"""About 560 things: names for clusters, to be written into ``"a photo of a {}"``."""
