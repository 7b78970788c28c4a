"""transformers: prompt lookup, its drafter without a model."""

from bench.rivals import Rival


class Transformers(Rival):
    name = "transformers"
    distribution = "transformers"
    needs = ("torch", "transformers")

    def draft(self):
        import torch
        from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

        def new():
            def start(prompt_ids, _topk):
                ids = torch.tensor([prompt_ids])

                def propose(budget):
                    lookup = PromptLookupCandidateGenerator(
                        num_output_tokens=budget, max_matching_ngram_size=2, max_length=1 << 20
                    )
                    found, _ = lookup.get_candidates(ids)
                    tokens = found[0, ids.shape[1] :].tolist()
                    return tokens, range(-1, len(tokens) - 1)

                def observe(tokens, _topk):
                    nonlocal ids
                    ids = torch.cat([ids, torch.tensor([tokens])], dim=1)

                return propose, observe

            return start

        return new


ADAPTER = Transformers()
