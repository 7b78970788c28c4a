"""arctic-inference: suffix decoding in C++, its tree mode with wide settings."""

from __future__ import annotations

from bench.rivals import Rival


class ArcticInference(Rival):
    """Its suffix trees need neither its engine nor torch; its other extensions do, and no wheel is published. So
    ``python bench/rivals/build_arctic_inference.py`` builds just them, and ``make bench`` does where there is a compiler.
    """

    name = "arctic-inference"
    distribution = "arctic-inference"
    needs = ("arctic_inference.suffix_decoding",)

    def draft(self):
        import itertools

        import numpy as np
        from arctic_inference.suffix_decoding import SuffixDecodingCache

        def new():
            cache, numbers = SuffixDecodingCache(), itertools.count()

            def start(prompt_ids, _topk):
                number, context = next(numbers), list(prompt_ids)
                if number:
                    cache.stop_request(number - 1)
                cache.start_request(number, np.array(prompt_ids, np.int32))

                def propose(budget):
                    tail = np.array(context[-cache.max_tree_depth :], np.int32)
                    draft = cache.speculate(
                        number,
                        tail,
                        max_spec_tokens=budget,
                        max_spec_factor=4.0,
                        max_spec_offset=4.0,
                        min_token_prob=0.01,
                        use_tree_spec=True,
                    )
                    return draft.token_ids, draft.parents

                def observe(tokens, _topk):
                    context.extend(tokens)
                    cache.add_active_response(number, tokens)

                return propose, observe

            return start

        return new


ADAPTER = ArcticInference()
