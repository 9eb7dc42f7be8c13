// Group norm, a scale and a shift of each channel, and silu, in one pass over an image, in float32: activated.py asks.
//
//     y = a / (1 + exp(-a)),      a = n (1 + s) + b,      n = (h - mean h) / sigma,      means over a group of channels of one image
//
// and the slopes of h, s and b. An image is (places, channels), channel beside channel.

#include "products.h"
#include "team.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace NAMESPACE {

constexpr int64_t LINES = 64;  // places whose sums are of float32; these are added in double

template <int64_t N>
struct Lanes {
  typedef float Vector __attribute__((vector_size(N * 4), aligned(4)));
  typedef int32_t Whole __attribute__((vector_size(N * 4), aligned(4)));
};
template <int64_t N>
using Vector = typename Lanes<N>::Vector;

template <int64_t N>
static inline Vector<N>& at(float* x) { return *reinterpret_cast<Vector<N>*>(x); }
template <int64_t N>
static inline const Vector<N>& at(const float* x) { return *reinterpret_cast<const Vector<N>*>(x); }

// work(c) on the channels c, as many at a time as a vector holds
template <class Work>
static inline void blocks(int64_t channels, Work work) {
  int64_t c = 0;
  for (; c + 2 * LANES <= channels; c += 2 * LANES) work(c, std::integral_constant<int64_t, 2 * LANES>());
  for (; c + LANES <= channels; c += LANES) work(c, std::integral_constant<int64_t, LANES>());
  for (; c + 4 <= channels; c += 4) work(c, std::integral_constant<int64_t, 4>());
  for (; c < channels; c++) work(c, std::integral_constant<int64_t, 1>());
}

// 1 / (1 + exp(-x)); exp by the polynomial of Moshier's Cephes library (expf, error below 1 ulp), without branches
template <int64_t N>
static inline Vector<N> sigmoid(Vector<N> x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: the sum with it rounds to a whole number, in its last bits
  const Vector<N> low = Vector<N>{} - 87.0f, high = Vector<N>{} + 89.0f;  // of which exp is infinite here
  Vector<N> in = -x;
  in = in < low ? low : in;
  in = in > high ? high : in;
  const Vector<N> t = in * 1.44269504088896341f + magic, k = t - magic;
  const Vector<N> r = (in - k * 0.693359375f) + k * 2.12194440e-4f;
  Vector<N> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + r + 1.0f;
  const auto bits = (reinterpret_cast<typename Lanes<N>::Whole>(t) + 127) << 23;
  return 1.0f / (1.0f + p * reinterpret_cast<Vector<N>>(bits));
}

// s and b (images, channels) or both null; mean, inverse (images, groups)
void activate(int64_t images, int64_t places, int64_t channels, int64_t groups, const float* h, const float* s, const float* b,
              float* y, float* mean, float* inverse, int threads) {
  const int64_t size = places * channels, each = channels / groups;
  const double share = 1.0 / double(places * each);
  in_threads(images, threads, [&](int64_t i) {
    std::vector<float> room(2 * channels);
    std::vector<double> total(channels, 0.0);
    float *scale = room.data(), *shift = scale + channels;
    const float* x = h + i * size;
    float* to = y + i * size;
    blocks(channels, [&](int64_t c, auto lanes) {
      constexpr int64_t N = lanes;
      for (int64_t p = 0; p < places; p += LINES) {
        Vector<N> sum = {};
        for (int64_t q = p; q < std::min(p + LINES, places); q++) sum += at<N>(x + q * channels + c);
        for (int64_t k = 0; k < N; k++) total[c + k] += double(sum[k]);
      }
    });
    for (int64_t k = 0; k < groups; k++) {
      double sum = 0.0;
      for (int64_t c = k * each; c < (k + 1) * each; c++) sum += total[c], total[c] = 0.0;
      mean[i * groups + k] = float(sum * share);
      std::fill_n(shift + k * each, each, mean[i * groups + k]);
    }
    blocks(channels, [&](int64_t c, auto lanes) {
      constexpr int64_t N = lanes;
      const Vector<N> middle = at<N>(shift + c);
      for (int64_t p = 0; p < places; p += LINES) {
        Vector<N> sum = {};
        for (int64_t q = p; q < std::min(p + LINES, places); q++) {
          const Vector<N> apart = at<N>(x + q * channels + c) - middle;
          sum += apart * apart;
        }
        for (int64_t k = 0; k < N; k++) total[c + k] += double(sum[k]);
      }
    });
    for (int64_t k = 0; k < groups; k++) {
      double sum = 0.0;
      for (int64_t c = k * each; c < (k + 1) * each; c++) sum += total[c];
      const float d = float(1.0 / std::sqrt(sum * share + 1e-5));
      inverse[i * groups + k] = d;
      for (int64_t c = k * each; c < (k + 1) * each; c++) {
        scale[c] = s ? d * (1.0f + s[i * channels + c]) : d;
        shift[c] = (b ? b[i * channels + c] : 0.0f) - mean[i * groups + k] * scale[c];
      }
    }
    blocks(channels, [&](int64_t c, auto lanes) {
      constexpr int64_t N = lanes;
      const Vector<N> times = at<N>(scale + c), plus = at<N>(shift + c);
      for (int64_t q = c; q < size; q += channels) {
        const Vector<N> a = at<N>(x + q) * times + plus;
        at<N>(to + q) = a * sigmoid<N>(a);
      }
    });
  });
}

// the slopes of h, s and b, of that of y; ds, db (images, channels), written where s and b are there
void activate_back(int64_t images, int64_t places, int64_t channels, int64_t groups, const float* h, const float* s, const float* b,
                   const float* mean, const float* inverse, const float* slope, float* dh, float* ds, float* db, int threads) {
  const int64_t size = places * channels, each = channels / groups;
  const double share = 1.0 / double(places * each);
  in_threads(images, threads, [&](int64_t i) {
    std::vector<float> room(6 * channels);
    std::vector<double> total(2 * channels, 0.0);
    float *d = room.data(), *m = d + channels, *one = m + channels, *shift = one + channels, *first = shift + channels,
          *second = first + channels;
    double *along = total.data(), *with_n = along + channels;
    for (int64_t c = 0; c < channels; c++) {
      d[c] = inverse[i * groups + c / each], m[c] = mean[i * groups + c / each];
      one[c] = s ? 1.0f + s[i * channels + c] : 1.0f, shift[c] = b ? b[i * channels + c] : 0.0f;
    }
    const float *x = h + i * size, *g = slope + i * size;
    float* to = dh + i * size;
    blocks(channels, [&](int64_t c, auto lanes) {
      constexpr int64_t N = lanes;
      const Vector<N> middle = at<N>(m + c), over = at<N>(d + c), times = at<N>(one + c), plus = at<N>(shift + c);
      for (int64_t p = 0; p < places; p += LINES) {
        Vector<N> sum = {}, other = {};
        for (int64_t q = p; q < std::min(p + LINES, places); q++) {
          const int64_t place = q * channels + c;
          const Vector<N> n = (at<N>(x + place) - middle) * over, a = n * times + plus, gate = sigmoid<N>(a);
          const Vector<N> here = at<N>(g + place) * (gate * (1.0f + a * (1.0f - gate)));
          at<N>(to + place) = here;
          sum += here, other += here * n;
        }
        for (int64_t k = 0; k < N; k++) along[c + k] += double(sum[k]), with_n[c + k] += double(other[k]);
      }
    });
    for (int64_t k = 0; k < groups; k++) {
      double a = 0.0, w = 0.0;
      for (int64_t c = k * each; c < (k + 1) * each; c++) a += along[c] * one[c], w += with_n[c] * one[c];
      std::fill_n(first + k * each, each, float(a * share));
      std::fill_n(second + k * each, each, float(w * share));
    }
    if (s)
      for (int64_t c = 0; c < channels; c++) ds[i * channels + c] = float(with_n[c]), db[i * channels + c] = float(along[c]);
    blocks(channels, [&](int64_t c, auto lanes) {
      constexpr int64_t N = lanes;
      const Vector<N> middle = at<N>(m + c), over = at<N>(d + c), times = at<N>(one + c);
      const Vector<N> a = at<N>(first + c), w = at<N>(second + c);
      for (int64_t q = c; q < size; q += channels)
        at<N>(to + q) = over * (at<N>(to + q) * times - a - (at<N>(x + q) - middle) * over * w);
    });
  });
}

}  // namespace NAMESPACE
