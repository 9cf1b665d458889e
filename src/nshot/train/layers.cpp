// Pre-norm transformer layers over short sequences, forward and backward, on one core.
//
// In a small tower a matrix product is over before a library has hidden what surrounds it: each is followed by
// passes over memory for a bias, an activation, a norm. Here a group of sequences, some 160 rows, goes through a
// whole layer while it is in the core's cache, and the products are tiles that fill the vector registers.
//
// A matrix is rows of floats. layers.py builds this file for the processor it runs on and calls the functions at its end.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// ---- matrix products ------------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int LANES = 16, VECTORS = 4;
#elif defined(__AVX__)
constexpr int LANES = 8, VECTORS = 2;
#else
constexpr int LANES = 4, VECTORS = 4;
#endif
constexpr int ROWS = 6;                 // a tile of ROWS x VECTORS sums fills the registers
constexpr int PANEL = VECTORS * LANES;  // columns of the right matrix that lie together
constexpr int DEPTH = 160;              // rows of a panel that stay in the first cache
constexpr int GROUP = 160;              // rows that go through a layer together

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector values) { *reinterpret_cast<Vector*>(to) = values; }
inline int in_lanes(int count) { return (count + LANES - 1) / LANES * LANES; }
inline int panel_at(int column, int columns) { return std::min(PANEL, in_lanes(columns - column)); }

// The right matrix [depth, columns], its element (k, n) at k * down + n * right, in panels: all rows of the first
// PANEL columns, then of the next; what the last panel lacks is zero.
void pack(int depth, int columns, const float* from, long down, long right, float* to) {
    for (int n = 0; n < columns; n += PANEL) {
        const int wide = panel_at(n, columns), there = std::min(wide, columns - n);
        for (int k = 0; k < depth; ++k, to += wide) {
            const float* row = from + k * down + n * right;
            if (right == 1)
                for (int i = 0; i < there; ++i) to[i] = row[i];
            else
                for (int i = 0; i < there; ++i) to[i] = row[i * right];
            for (int i = there; i < wide; ++i) to[i] = 0;
        }
    }
}

// One row of a matrix [depth, columns] into its place in the panels.
void pack_row(int row, int depth, int columns, const float* from, float* to) {
    for (int n = 0; n < columns; n += PANEL) {
        const int wide = panel_at(n, columns);
        std::memcpy(to + long(n) * depth + long(row) * wide, from + n, sizeof(float) * wide);
    }
}

template <int R, int V>
void tile(int depth, const float* a, long down, long right, const float* b, float* c, long pitch, bool add) {
    Vector sums[R][V];  // unrolled whole, so that they never leave the registers
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = Vector{};
    for (int k = 0; k < depth; ++k, a += right, b += V * LANES) {
        Vector row[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) row[v] = load(b + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[r][v] += a[r * down] * row[v];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            float* to = c + r * pitch + v * LANES;
            store(to, add ? load(to) + sums[r][v] : sums[r][v]);
        }
}

template <int V>
void tiles(int rows, int depth, const float* a, long down, long right, const float* b, float* c, long pitch, bool add) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * down, c += ROWS * pitch)
        tile<ROWS, V>(depth, a, down, right, b, c, pitch, add);
    switch (rows) {
        case 1: return tile<1, V>(depth, a, down, right, b, c, pitch, add);
        case 2: return tile<2, V>(depth, a, down, right, b, c, pitch, add);
        case 3: return tile<3, V>(depth, a, down, right, b, c, pitch, add);
        case 4: return tile<4, V>(depth, a, down, right, b, c, pitch, add);
        case 5: return tile<5, V>(depth, a, down, right, b, c, pitch, add);
    }
}

// c [rows, columns] = a @ b, or c += a @ b. The element (r, k) of a is at r * down + k * right, so a matrix and its
// transpose are the same call; b is packed; a row of c begins ``pitch`` after the one before.
void multiply(int rows, int columns, int depth, const float* a, long down, long right, const float* b, float* c,
              long pitch, bool add = false) {
    const int parts = (depth + DEPTH - 1) / DEPTH, step = (depth + parts - 1) / parts;
    for (int n = 0; n < columns; n += PANEL) {
        const int wide = panel_at(n, columns);
        for (int k = 0; k < depth; k += step) {
            const int deep = std::min(step, depth - k);
            const float *left = a + k * right, *panel = b + long(n) * depth + long(k) * wide;
            const bool more = add || k > 0;
            switch (wide / LANES) {
                case 1: tiles<1>(rows, deep, left, down, right, panel, c + n, pitch, more); break;
                case 2: tiles<2>(rows, deep, left, down, right, panel, c + n, pitch, more); break;
                case 3: tiles<3>(rows, deep, left, down, right, panel, c + n, pitch, more); break;
                case 4: tiles<4>(rows, deep, left, down, right, panel, c + n, pitch, more); break;
            }
        }
    }
}

void add_to_rows(int rows, int width, float* x, const float* each) {
    for (int r = 0; r < rows; ++r, x += width)
        for (int i = 0; i < width; ++i) x[i] += each[i];
}

void add_up_rows(int rows, int width, const float* x, float* sums) {
    for (int r = 0; r < rows; ++r, x += width)
        for (int i = 0; i < width; ++i) sums[i] += x[i];
}

// y = x @ weight^T + bias. The weight [outputs, inputs] comes packed for both ways.
struct Linear {
    int outputs, inputs;
    const float *forward, *backward, *bias;
    float *weight_gradient, *bias_gradient;

    void run(int rows, const float* x, float* y) const {
        multiply(rows, outputs, inputs, x, inputs, 1, forward, y, outputs);
        add_to_rows(rows, outputs, y, bias);
    }
    void run_onto(int rows, const float* x, float* y) const {
        add_to_rows(rows, outputs, y, bias);
        multiply(rows, outputs, inputs, x, inputs, 1, forward, y, outputs, true);
    }
    void back(int rows, const float* y_gradient, float* x_gradient) const {
        multiply(rows, inputs, outputs, y_gradient, outputs, 1, backward, x_gradient, inputs);
    }
    // Adds to the parameters' gradients; x is packed.
    void learn(int rows, const float* x, const float* y_gradient) const {
        multiply(outputs, inputs, rows, y_gradient, 1, outputs, x, weight_gradient, inputs, true);
        add_up_rows(rows, outputs, y_gradient, bias_gradient);
    }
};

// ---- activations ----------------------------------------------------------------------------------------

// exp to 1e-7 of its value, for -87 <= x <= 88; beyond, as if it were there (the Cephes library's polynomial).
inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    const float whole = std::nearbyint(x * 1.44269504f);
    const float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * rest + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * rest * rest + rest + 1.0f;
    const int32_t bits = (int32_t(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return y * power;
}

struct Slope {
    float value, gradient;
};

// x times the share of a normal distribution below it
// (the share: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26, to 1e-7).
inline Slope gelu(float x) {
    const float bell = exponential(-0.5f * x * x);
    const float t = 1.0f / (1.0f + 0.231641888f * std::fabs(x));
    float y = 1.061405429f;
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    const float tail = 0.5f * y * t * bell, share = x < 0 ? tail : 1.0f - tail;
    return {x * share, share + x * bell * 0.398942280f};
}

inline Slope quick_gelu(float x) {
    const float share = 1.0f / (1.0f + exponential(-1.702f * x));
    return {x * share, share * (1.0f + 1.702f * x * (1.0f - share))};
}

template <Slope function(float)>
void activate(long count, const float* x, float* y) {
    for (long i = 0; i < count; ++i) y[i] = function(x[i]).value;
}

template <Slope function(float)>
void activate_back(long count, const float* x, float* y, float* gradient) {
    for (long i = 0; i < count; ++i) {
        const Slope at = function(x[i]);
        y[i] = at.value;
        gradient[i] *= at.gradient;
    }
}

// ---- norms ----------------------------------------------------------------------------------------------

struct Centre {  // of a row
    float mean, scale;
};

struct Norm {
    const float *gain, *bias;
    float *gain_gradient, *bias_gradient;

    void row(int width, const float* x, Centre at, float* y) const {
        for (int i = 0; i < width; ++i) y[i] = (x[i] - at.mean) * at.scale * gain[i] + bias[i];
    }
    void run(int rows, int width, float epsilon, const float* x, float* y, Centre* centres) const {
        for (int r = 0; r < rows; ++r, x += width, y += width) {
            float sum = 0, squares = 0;
            for (int i = 0; i < width; ++i) sum += x[i];
            const float mean = sum / width;
            for (int i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
            centres[r] = {mean, 1.0f / std::sqrt(squares / width + epsilon)};
            row(width, x, centres[r], y);
        }
    }
    // Once more, packed; ``space`` has room for a row.
    void again(int rows, int width, const float* x, const Centre* centres, float* space, float* packed) const {
        for (int r = 0; r < rows; ++r, x += width) {
            row(width, x, centres[r], space);
            pack_row(r, rows, width, space, packed);
        }
    }
    // x's gradient is added to what is there.
    void back(int rows, int width, const float* x, const Centre* centres, const float* y_gradient,
              float* x_gradient) const {
        for (int r = 0; r < rows; ++r, x += width, y_gradient += width, x_gradient += width) {
            const auto [mean, scale] = centres[r];
            float sum = 0, along = 0;
            for (int i = 0; i < width; ++i) {
                const float unit = (x[i] - mean) * scale, inner = y_gradient[i] * gain[i];
                gain_gradient[i] += y_gradient[i] * unit;
                bias_gradient[i] += y_gradient[i];
                sum += inner;
                along += inner * unit;
            }
            sum /= width, along /= width;
            for (int i = 0; i < width; ++i)
                x_gradient[i] += scale * (y_gradient[i] * gain[i] - sum - (x[i] - mean) * scale * along);
        }
    }
};

// ---- attention ------------------------------------------------------------------------------------------

// One head over one sequence. The rows of queries, keys and values are 3 * ``width`` apart, those of the output
// ``width``; the chances [length, wide] are zero where a key is not seen.
class Attention {
   public:
    Attention(int length, int head, int width, bool causal)
        : length_(length), wide_(in_lanes(length)), head_(head), width_(width), causal_(causal),
          sharpness_(1.0f / std::sqrt(float(head))), packed_(long(wide_) * in_lanes(head)),
          slopes_(long(length) * wide_) {}

    // chances = softmax(queries @ keys^T / sqrt(head)), output = chances @ values
    void run(const float* queries, float* chances, float* output) {
        const float *keys = queries + width_, *values = keys + width_;
        pack(head_, length_, keys, 1, 3 * width_, packed_.data());
        multiply(length_, length_, head_, queries, 3 * width_, 1, packed_.data(), chances, wide_);
        for (int i = 0; i < length_; ++i) softmax(causal_ ? i + 1 : length_, chances + long(i) * wide_);
        pack(length_, head_, values, 3 * width_, 1, packed_.data());
        multiply(length_, head_, length_, chances, wide_, 1, packed_.data(), output, width_);
    }

    // From the output's gradient to that of queries, keys and values, which lie like those.
    void back(const float* queries, const float* chances, const float* gradient, float* to) {
        const float *keys = queries + width_, *values = keys + width_;
        const long pitch = 3 * width_;
        float *packed = packed_.data(), *slopes = slopes_.data();
        pack(length_, head_, gradient, width_, 1, packed);
        multiply(length_, head_, length_, chances, 1, wide_, packed, to + 2 * width_, pitch);
        pack(head_, length_, values, 1, pitch, packed);
        multiply(length_, length_, head_, gradient, width_, 1, packed, slopes, wide_);
        for (int i = 0; i < length_; ++i) {
            const float* chance = chances + long(i) * wide_;
            float *slope = slopes + long(i) * wide_, mean = 0;
            for (int j = 0; j < wide_; ++j) mean += chance[j] * slope[j];
            for (int j = 0; j < wide_; ++j) slope[j] = chance[j] * (slope[j] - mean) * sharpness_;
        }
        pack(length_, head_, keys, pitch, 1, packed);
        multiply(length_, head_, length_, slopes, wide_, 1, packed, to, pitch);
        pack(length_, head_, queries, pitch, 1, packed);
        multiply(length_, head_, length_, slopes, 1, wide_, packed, to + width_, pitch);
    }

   private:
    void softmax(int seen, float* row) const {
        float most = row[0], sum = 0;
        for (int j = 0; j < seen; ++j) most = std::max(most, row[j]);
        for (int j = 0; j < wide_; ++j) row[j] = exponential((row[j] - most) * sharpness_);
        for (int j = seen; j < wide_; ++j) row[j] = 0;
        for (int j = 0; j < wide_; ++j) sum += row[j];
        const float share = 1.0f / sum;
        for (int j = 0; j < wide_; ++j) row[j] *= share;
    }

    const int length_, wide_, head_, width_;
    const bool causal_;
    const float sharpness_;
    std::vector<float> packed_, slopes_;
};

// ---- layers ---------------------------------------------------------------------------------------------

struct Shape {
    int layers, width, heads, inner, quick, causal;
    float epsilon;
};

struct Layer {
    Norm first;
    Linear asked, mixed;  // to queries, keys and values; from the heads' output
    Norm second;
    Linear widened, narrowed;  // the MLP
};

// What the way back needs of a group's rows in one layer.
struct Kept {
    float *input, *asked, *chances, *heads, *middle, *inner;
    Centre *first, *second;

    static long per_row(const Shape& shape, int length) {
        return 6 * shape.width + shape.heads * in_lanes(length) + shape.inner + 4;
    }
    Kept(const Shape& shape, int length, long rows, float* at) {
        input = at;
        asked = input + rows * shape.width;
        chances = asked + rows * 3 * shape.width;
        heads = chances + rows * shape.heads * in_lanes(length);
        middle = heads + rows * shape.width;
        inner = middle + rows * shape.width;
        first = reinterpret_cast<Centre*>(inner + rows * shape.inner);
        second = first + rows;
    }
};

// The layers over ``count`` sequences of ``length`` rows.
class Pass {
   public:
    Pass(const Shape& shape, const Layer* layers, int count, int length)
        : shape_(shape), layers_(layers), count_(count), length_(length), together_(std::max(1, GROUP / length)),
          attention_(length, shape.width / shape.heads, shape.width, shape.causal) {
        const long rows = long(std::min(count, together_)) * length;
        normed_.resize(rows * shape.width);
        inner_.resize(rows * shape.inner);
        asked_.resize(rows * 3 * shape.width);
        packed_.resize(rows * std::max(shape.width, shape.inner));
        row_.resize(std::max(shape.width, shape.inner));
    }

    // x [count * length, width], in place. What the way back needs is kept if there is a place for it.
    void forward(float* x, float* kept) {
        std::vector<float> once(kept ? 0 : long(std::min(count_, together_)) * length_ * Kept::per_row(shape_, length_));
        for (int from = 0; from < count_; from += together_) {
            const int sequences = std::min(together_, count_ - from);
            for (int l = 0; l < shape_.layers; ++l)
                forward(layers_[l], sequences, x + long(from) * length_ * shape_.width,
                        kept ? place(kept, l, from, sequences) : Kept(shape_, length_, sequences * length_, once.data()));
        }
    }

    // From the gradient behind the layers [count * length, width] to the one before them, in place.
    void backward(float* gradient, float* kept) {
        for (int from = 0; from < count_; from += together_) {
            const int sequences = std::min(together_, count_ - from);
            for (int l = shape_.layers - 1; l >= 0; --l)
                backward(layers_[l], sequences, gradient + long(from) * length_ * shape_.width,
                         place(kept, l, from, sequences));
        }
    }

   private:
    Kept place(float* kept, int layer, int from, int sequences) const {
        const long row = (long(layer) * count_ + from) * length_;
        return Kept(shape_, length_, sequences * length_, kept + row * Kept::per_row(shape_, length_));
    }

    void forward(const Layer& layer, int sequences, float* x, const Kept& kept) {
        const int rows = sequences * length_, width = shape_.width, inner = shape_.inner;
        std::memcpy(kept.input, x, sizeof(float) * rows * width);
        layer.first.run(rows, width, shape_.epsilon, x, normed_.data(), kept.first);
        layer.asked.run(rows, normed_.data(), kept.asked);
        for_heads(sequences, [&](long row, int head, int column) {
            attention_.run(kept.asked + row * 3 * width + column, chances(kept, row, head),
                           kept.heads + row * width + column);
        });
        layer.mixed.run_onto(rows, kept.heads, x);

        std::memcpy(kept.middle, x, sizeof(float) * rows * width);
        layer.second.run(rows, width, shape_.epsilon, x, normed_.data(), kept.second);
        layer.widened.run(rows, normed_.data(), kept.inner);
        (shape_.quick ? activate<quick_gelu> : activate<gelu>)(long(rows) * inner, kept.inner, inner_.data());
        layer.narrowed.run_onto(rows, inner_.data(), x);
    }

    void backward(const Layer& layer, int sequences, float* gradient, const Kept& kept) {
        const int rows = sequences * length_, width = shape_.width, inner = shape_.inner;
        layer.narrowed.back(rows, gradient, inner_.data());
        for (int r = 0; r < rows; ++r) {
            (shape_.quick ? activate_back<quick_gelu> : activate_back<gelu>)(inner, kept.inner + long(r) * inner,
                                                                           row_.data(), &inner_[long(r) * inner]);
            pack_row(r, rows, inner, row_.data(), packed_.data());
        }
        layer.narrowed.learn(rows, packed_.data(), gradient);
        layer.widened.back(rows, inner_.data(), normed_.data());
        layer.second.again(rows, width, kept.middle, kept.second, row_.data(), packed_.data());
        layer.widened.learn(rows, packed_.data(), inner_.data());
        layer.second.back(rows, width, kept.middle, kept.second, normed_.data(), gradient);

        layer.mixed.back(rows, gradient, normed_.data());
        pack(rows, width, kept.heads, width, 1, packed_.data());
        layer.mixed.learn(rows, packed_.data(), gradient);
        for_heads(sequences, [&](long row, int head, int column) {
            attention_.back(kept.asked + row * 3 * width + column, chances(kept, row, head),
                            &normed_[row * width + column], &asked_[row * 3 * width + column]);
        });
        layer.asked.back(rows, asked_.data(), normed_.data());
        layer.first.again(rows, width, kept.input, kept.first, row_.data(), packed_.data());
        layer.asked.learn(rows, packed_.data(), asked_.data());
        layer.first.back(rows, width, kept.input, kept.first, normed_.data(), gradient);
    }

    // ``each`` of a sequence's first row, a head and the head's first column.
    template <class Each>
    void for_heads(int sequences, Each each) const {
        for (int i = 0; i < sequences; ++i)
            for (int h = 0; h < shape_.heads; ++h) each(long(i) * length_, h, h * shape_.width / shape_.heads);
    }
    float* chances(const Kept& kept, long row, int head) const {
        return kept.chances + (row * shape_.heads + long(head) * length_) * in_lanes(length_);
    }

    const Shape shape_;
    const Layer* const layers_;
    const int count_, length_, together_;
    Attention attention_;
    std::vector<float> normed_, inner_, asked_, packed_, row_;
};

}  // namespace

extern "C" {

void nshot_pack(int depth, int columns, const float* from, long down, long right, float* to) {
    pack(depth, columns, from, down, right, to);
}

long nshot_kept_per_row(const Shape* shape, int length) { return Kept::per_row(*shape, length); }

void nshot_forward(const Shape* shape, const Layer* layers, int count, int length, float* x, float* kept) {
    Pass(*shape, layers, count, length).forward(x, kept);
}

void nshot_backward(const Shape* shape, const Layer* layers, int count, int length, float* gradient, float* kept) {
    Pass(*shape, layers, count, length).backward(gradient, kept);
}
}
