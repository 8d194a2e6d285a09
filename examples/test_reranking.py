"""Try a model on candidate searches: which order the retrieval gave, and which the model gives.

    python examples/test_reranking.py            # prints both orders
    pytest examples/test_reranking.py            # is the best candidate first?

To try another model, change MODEL: a bundle's folder, "./mine", or the id of a hub model after `raskrank export ID`.
"""

from raskrank import Reranker

MODEL: str | None = None  # such as "BAAI/bge-reranker-base"; None: what RASKRANK_MODEL says, or the embedded one

# Candidates as the retrieval found them; BEST has the place, from 1, of the one who should be asked first.
SEARCHES = {
    "Sykepleier med erfaring fra intensivavdeling": [
        "Sykehusvaktmester, tekniske anlegg på intensivavdelingen.",
        "Helsefagarbeider, nattvakter ved sykehjem i Bodø.",
        "Intensivsykepleier, åtte år på intensivavdelingen ved UNN.",
        "Kokk med fagbrev, fire år ved storkjøkken på sykehus.",
    ],
    "Pythonutvikler som kan Django og PostgreSQL": [
        "Dyrepasser ved reptilsenter, ansvar for pytonslanger.",
        "Backend: seks år med Python, Django og PostgreSQL.",
        "Frontendutvikler, React og TypeScript, noe Python.",
        "Databaseadministrator, Oracle og SQL Server.",
    ],
    "Lærar som underviser i matematikk i ungdomsskulen": [
        "Lærer i norsk og samfunnsfag på videregående.",
        "Realist, master i matematikk, jobbar i forsikring.",
        "Skulesekretær ved ein ungdomsskule.",
        "Lektor, underviser i matematikk på ungdomsskulen.",
    ],
    "Nurse for night shifts, must speak Norwegian": [
        "Night porter at a hotel in Bergen, speaks Norwegian.",
        "Nurse educator in London, teaches anatomy.",
        "Sykepleier, snakker norsk og engelsk, ønsker dagtid.",
        "Registered nurse, night shifts, speaks Norwegian.",
    ],
}
BEST = [3, 2, 4, 4]


def test_the_best_candidate_comes_first() -> None:
    first = []
    with Reranker.load(MODEL) as reranker:
        print(f"{reranker.info().name}, from: {reranker.info().model_from}")
        for search, candidates in SEARCHES.items():
            print(f"\n{search}\nbefore  after   score")
            hits = reranker.rank(search, candidates)
            for after, hit in enumerate(hits, 1):
                print(f"{hit.index + 1:>6}  {after:>5}  {hit.score:>6.3f}  {candidates[hit.index]}")
            first.append(hits[0].index + 1)
    assert first == BEST


if __name__ == "__main__":
    test_the_best_candidate_comes_first()
