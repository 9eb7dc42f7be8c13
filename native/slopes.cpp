// What several slopes at once take back through a convolutional network, in float64: slopes.py says which network.
//
//     out[r, y, x, :] = sum over dy, dx, c of in[r, y + dy - e, x + dx - e, c] K[dy, dx, c, :]         0 outside the image
//
// of kernels of 3 x 3 (e = 1) and 1 x 1 (e = 0), and the slope of a group norm, with what goes past it,
//
//     slope <- (g - mean g - n mean(g n)) / sigma + past,      g = slope * factor,      means over a group of channels of one image
//
// An image is (places, channels), channel beside channel. It stays in a core's first cache while it is worked upon.

#include "products.h"
#include "team.h"

#include <algorithm>
#include <vector>

namespace NAMESPACE {

typedef double Vector __attribute__((vector_size(LANES * 8), aligned(8)));
constexpr int64_t WIDE = LANES;
constexpr int64_t SIDE = 16;               // outputs of a block of the kernel, which Python lays out: [block][size][size][channels][SIDE]
constexpr int64_t HELD = LANES == 8 ? 16 : 8;   // outputs whose sums are held in registers
constexpr int64_t TILE = LANES == 8 ? 8 : 4;    // places whose sums are

static inline Vector& at(double* x) { return *reinterpret_cast<Vector*>(x); }
static inline const Vector& at(const double* x) { return *reinterpret_cast<const Vector*>(x); }

// the sums of TILE places by HELD outputs
template <int64_t V, int64_t SIZE>
static inline void tile(const double* const* place, int64_t width, int64_t channels, const double* kernel, Vector (*sum)[V]) {
  for (int64_t t = 0; t < TILE; t++)
    for (int64_t v = 0; v < V; v++) sum[t][v] = Vector{};
  for (int64_t dy = 0; dy < SIZE; dy++) {
    const int64_t row = dy * width * channels, many = SIZE * channels;  // places of a row lie one after another
    for (int64_t c = 0; c < many; c++, kernel += SIDE) {
      Vector w[V];
      for (int64_t v = 0; v < V; v++) w[v] = *reinterpret_cast<const Vector*>(kernel + v * WIDE);
#pragma GCC unroll 8
      for (int64_t t = 0; t < TILE; t++)
        for (int64_t v = 0; v < V; v++) sum[t][v] += place[t][row + c] * w[v];
    }
  }
}

// all places by V vectors of outputs, of which `many` are written, each `stride` after the one before
template <int64_t V, int64_t SIZE>
static inline void block_of(const double* image, int64_t wide, int64_t width, int64_t places, int64_t channels, int64_t many,
                            const double* kernel, double* out, int64_t stride) {
  for (int64_t p = 0; p < places; p += TILE) {
    const double* place[TILE];
    for (int64_t t = 0; t < TILE; t++) {
      const int64_t q = std::min(p + t, places - 1);
      place[t] = image + (q / width * wide + q % width) * channels;
    }
    Vector sum[TILE][V];
    tile<V, SIZE>(place, wide, channels, kernel, sum);
    for (int64_t t = 0; t < std::min(TILE, places - p); t++) {
      double* to = out + (p + t) * stride;
      if (many == V * WIDE)
        for (int64_t v = 0; v < V; v++) *reinterpret_cast<Vector*>(to + v * WIDE) = sum[t][v];
      else
        for (int64_t k = 0; k < many; k++) to[k] = sum[t][k / WIDE][k % WIDE];
    }
  }
}

template <int64_t SIZE>
static void convolved(int64_t rows, int64_t height, int64_t width, int64_t channels, int64_t outputs, const double* kernel,
                      const double* in, double* out, int threads) {
  constexpr int64_t V = HELD / WIDE, PART = 4, EDGE = SIZE / 2;
  const int64_t wide = width + 2 * EDGE, places = height * width, block = SIZE * SIZE * channels * SIDE;
  in_threads((rows + PART - 1) / PART, threads, [&](int64_t part) {
    std::vector<double> padded(EDGE ? (height + 2) * wide * channels : 0, 0.0);
    for (int64_t r = part * PART; r < std::min(rows, (part + 1) * PART); r++) {
      const double* image = in + r * places * channels;
      if (EDGE) {
        for (int64_t y = 0; y < height; y++)
          std::copy_n(image + y * width * channels, width * channels, padded.data() + ((y + 1) * wide + 1) * channels);
        image = padded.data();
      }
      for (int64_t o = 0; o < outputs; o += HELD) {
        const double* own = kernel + o / SIDE * block + o % SIDE;
        if (outputs - o > WIDE)
          block_of<V, SIZE>(image, wide, width, places, channels, std::min(outputs - o, HELD), own, out + r * places * outputs + o, outputs);
        else  // a vector is enough
          block_of<1, SIZE>(image, wide, width, places, channels, outputs - o, own, out + r * places * outputs + o, outputs);
      }
    }
  });
}

void convolve(int64_t rows, int64_t height, int64_t width, int64_t channels, int64_t outputs, int64_t size, const double* kernel,
              const double* in, double* out, int threads) {
  (size == 3 ? convolved<3> : convolved<1>)(rows, height, width, channels, outputs, kernel, in, out, threads);
}

// slope, past (rows, places, channels), past may be null; of row r the image is r % images: factor, n (images, places, channels), inverse (images, groups)
void normalised(int64_t rows, int64_t images, int64_t places, int64_t channels, int64_t groups, const double* factor, const double* n,
                const double* inverse, const double* past, double* slope, int threads) {
  const int64_t size = places * channels, each = channels / groups;
  const double mean = 1.0 / double(places * each);
  constexpr int64_t PART = 4;
  in_threads((rows + PART - 1) / PART, threads, [&](int64_t part) {
    std::vector<double> sums(3 * channels);
    double *one = sums.data(), *two = one + channels, *scale = two + channels;
    const int64_t vectors = channels / WIDE * WIDE;
    for (int64_t r = part * PART; r < std::min(rows, (part + 1) * PART); r++) {
      const double *f = factor + r % images * size, *m = n + r % images * size, *s = inverse + r % images * groups;
      double* g = slope + r * size;
      const double* beside = past ? past + r * size : nullptr;
      for (int64_t c = 0; c < vectors; c += WIDE) {
        Vector a = {}, b = {};
        for (int64_t i = c; i < size; i += channels) {
          const Vector here = at(g + i) * at(f + i);
          at(g + i) = here, a += here, b += here * at(m + i);
        }
        at(one + c) = a, at(two + c) = b;
      }
      for (int64_t c = vectors; c < channels; c++) {
        one[c] = two[c] = 0.0;
        for (int64_t i = c; i < size; i += channels) g[i] *= f[i], one[c] += g[i], two[c] += g[i] * m[i];
      }
      for (int64_t k = 0; k < groups; k++) {
        double a = 0.0, b = 0.0;
        for (int64_t c = k * each; c < (k + 1) * each; c++) a += one[c], b += two[c];
        for (int64_t c = k * each; c < (k + 1) * each; c++) one[c] = a * mean * s[k], two[c] = b * mean * s[k], scale[c] = s[k];
      }
      for (int64_t c = 0; c < vectors; c += WIDE) {
        const Vector a = at(one + c), b = at(two + c), d = at(scale + c);
        if (beside)
          for (int64_t i = c; i < size; i += channels) at(g + i) = at(g + i) * d - a - at(m + i) * b + at(beside + i);
        else
          for (int64_t i = c; i < size; i += channels) at(g + i) = at(g + i) * d - a - at(m + i) * b;
      }
      for (int64_t c = vectors; c < channels; c++)
        for (int64_t i = c; i < size; i += channels) g[i] = g[i] * scale[c] - one[c] - m[i] * two[c] + (beside ? beside[i] : 0.0);
    }
  });
}

}  // namespace NAMESPACE
