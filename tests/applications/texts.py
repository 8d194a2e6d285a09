"""What the adapters' tests rank: two texts of four are equal, and the best part of a long one stands at its end."""

QUERY = "Hvem kan programmere i Python?"
TEXTS = [
    "Dyrepasser ved et reptilsenter, med ansvar for pytonslanger.",
    "Utvikler med åtte års erfaring i Python og PostgreSQL.",
    "Nurse with night-shift experience, speaks Norwegian and English.",
    "Utvikler med åtte års erfaring i Python og PostgreSQL.",
]
BEST = [1, 3, 0, 2]  # equal ones in their order
LONG = "Været er fint i dag. " * 300 + TEXTS[1]
