// Joins a selection with the tokens that are always kept: the first n_first, the k selected, the last n_last, ascending.
//
// selected [batch * lists, k] int32, ascending, within [n_first, seq_len - n_last); seq_lens [batch] int32
// out      [batch * lists, n_first + k + n_last] int32, -1 padded; a sequence no longer than that is kept whole
// grid (batch * lists), block 128.
#include "tokamask/base.cuh"

extern "C" __global__ void __launch_bounds__(128, 8)
join_selection(const int32_t* selected, const int32_t* seq_lens, int32_t* out, int32_t lists, int32_t n_first, int32_t k, int32_t n_last) {
    const int64_t row = blockIdx.x;
    const int length = seq_lens[row / lists], width = n_first + k + n_last;
    for (int i = threadIdx.x; i < width; i += 128) {
        int token;
        if (length <= width) token = i < length ? i : -1;
        else if (i < n_first) token = i;
        else if (i < n_first + k) token = selected[row * k + i - n_first];
        else token = length - width + i;
        out[row * width + i] = token;
    }
}
