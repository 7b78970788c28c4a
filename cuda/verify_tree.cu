// Verifies draft trees: from the root, descend to the first child that is what the target chose, as long as there is one.
// With target ids from argmax this is greedy verification; with ids drawn by `sample` (one per row, under the grammar's mask of
// that row) it is the sampling rule "point", whose output has the target's law.
//
// token_ids, parents [batch, nodes] int32: parents come first, -1 is the root; a negative token id is padding
// targets  [batch, nodes + 1] int32: the target's choice after the root (column 0) and after each node; -1 (nothing can follow)
//          ends the walk
// path     [batch, nodes] int32: the accepted nodes, -1 padded
// accepted [batch] int32: how many; bonus [batch] int32: the target's choice after the last of them
// grid (batch), block 32.
#include "tokamask/base.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(32, 16)
verify_tree(const int32_t* token_ids, const int32_t* parents, const int32_t* targets, int32_t* path, int32_t* accepted, int32_t* bonus,
            int32_t nodes) {
    const int64_t b = blockIdx.x;
    const int32_t *tokens = token_ids + b * nodes, *above = parents + b * nodes, *wanted = targets + b * (nodes + 1);
    int32_t* to = path + b * nodes;
    int node = -1, length = 0;
    // Children come after their parent, so the search goes on where the parent stands.
    for (int start = 0; start < nodes;) {
        const int32_t want = wanted[node + 1];
        const int i = start + lane_index();
        const bool match = want >= 0 && i < nodes && i > node && above[i] == node && tokens[i] == want;
        const uint32_t matches = __ballot_sync(TM_ALL_LANES, match);
        if (matches == 0) {
            start += 32;
            continue;
        }
        node = start + __ffs(int(matches)) - 1;
        if (lane_index() == 0) to[length] = node;
        ++length;
        start = (node + 1) / 32 * 32;
    }
    for (int i = length + lane_index(); i < nodes; i += 32) to[i] = -1;
    if (lane_index() == 0) {
        accepted[b] = length;
        bonus[b] = wanted[node + 1];
    }
}
