// Sums over rows of a design, in one pass that keeps a block of rows in a core's cache.
//
//     eta = offset + X beta        gradient += X' s        A += X_a' diag(w) X_b
//
// X is never written out: it is an intercept, dense columns where they lie in memory, and categorical terms, of which
// only each row's code is read (0: the reference level; k: the k-th coefficient), times a number a row where the
// term interacts with one.
//
// The file is compiled once for each set of instructions (NAMESPACE); dispatch.cpp takes the best that the processor has.
// The sums are cut into parts by the number of rows and columns alone, and added in one order: the answer does not
// depend on the number of threads.

#include "products.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

namespace NAMESPACE {

constexpr int64_t ROWS = 512;   // of a block: 32 columns of it are 128 KiB, a part of a second-level cache
constexpr int64_t INNER = 128;  // of these, the rows whose products are summed at a time: 32 KiB, a first-level cache
constexpr int64_t TILE = 4;     // columns by columns whose sums are held in registers
constexpr int64_t NARROW = 64;  // levels of a term whose products are summed like those of columns
constexpr int64_t PARTS = 32;   // of the rows, each with sums of its own
constexpr int64_t MOST = 1 << 22;  // numbers that the sums of all parts may take together

typedef double Vector __attribute__((vector_size(LANES * 8), aligned(8)));
constexpr int64_t WIDE = LANES;

// ---- elementary functions, without branches so that a loop over rows is vectorised -----------------------------------------

static inline double from_bits(int64_t x) { double y; std::memcpy(&y, &x, 8); return y; }
static inline int64_t bits(double x) { int64_t y; std::memcpy(&y, &x, 8); return y; }

// exp x = 2^k exp r, |r| <= log(2)/2; exp r by its Pade form as in Moshier's Cephes library (error below 1 ulp)
static inline double exponential(double x) {
  const double magic = 6755399441055744.0;  // 1.5 * 2^52: the sum with it rounds to a whole number, in its last bits
  double in = std::min(std::max(x, -708.0), 709.782712893384);
  double t = in * 1.4426950408889634073599 + magic;
  double k = t - magic;
  double r = (in - k * 6.93145751953125E-1) - k * 1.42860682030941723212E-6;
  double z = r * r;
  double p = r * ((1.26177193074810590878E-4 * z + 3.02994407707441961300E-2) * z + 9.99999999999999999910E-1);
  double q = ((3.00198505138664455042E-6 * z + 2.52448340349684104192E-3) * z + 2.27265548208155028766E-1) * z + 2.0;
  double y = 2.0 * ((1.0 + 2.0 * p / (q - p)) * from_bits((bits(t) + 1022) << 52));
  y = x > 709.782712893384 ? INFINITY : y;
  y = x < -708.0 ? 0.0 : y;
  return x != x ? x : y;
}

// log(1 + t) of 0 <= t <= 1: log u = 2 atanh(f/(2 + f)) of u = 1 + t, halved where it is above sqrt 2, and what was lost in u
static inline double log_one_plus(double t) {
  double u = 1.0 + t, lost = t - (u - 1.0);
  double half = u > 1.41421356237309504880 ? 1.0 : 0.0;
  double f = (half > 0 ? 0.5 * u : u) - 1.0;
  double s = f / (2.0 + f), z = s * s, w = z * z;
  double even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  double odd = z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  double square = 0.5 * f * f;
  double tail = half * 1.90821492927058770002e-10 + lost / u;
  return half * 6.93147180369123816490e-01 - ((square - (s * (square + even + odd) + tail)) - f);
}

// ---- a block of rows ----------------------------------------------------------------------------------------------------

struct Block {
  // the rows of a design, a column after another: intercept, dense columns, zeros up to a multiple of TILE
  const Design& design;
  int64_t dense, padded, first = 0, rows = 0;
  std::vector<double> own;                 // [padded][ROWS]
  std::vector<std::vector<int32_t>> code;  // of each term
  std::vector<const double*> column;

  explicit Block(const Design& d)
      : design(d), dense(d.intercept + d.columns), padded((dense + TILE - 1) / TILE * TILE),
        own(padded * ROWS, 0.0), code(d.terms, std::vector<int32_t>(ROWS)), column(padded) {
    for (int64_t j = 0; j < padded; j++) column[j] = own.data() + j * ROWS;
    if (d.intercept) std::fill_n(own.data(), ROWS, 1.0);
  }

  void read(int64_t from, int64_t count) {
    first = from, rows = count;
    for (int64_t j = 0; j < design.columns; j++) {
      const int64_t at = j + design.intercept;
      double* to = own.data() + at * ROWS;
      const int64_t start = from * design.row_stride + j * design.column_stride;
      if (design.single) {
        const float* x = static_cast<const float*>(design.x) + start;
        for (int64_t i = 0; i < count; i++) to[i] = x[i * design.row_stride];
      } else {
        const double* x = static_cast<const double*>(design.x) + start;
        if (design.row_stride == 1 && count == ROWS) { column[at] = x; continue; }  // read where it lies
        for (int64_t i = 0; i < count; i++) to[i] = x[i * design.row_stride];
      }
      for (int64_t i = count; i < ROWS; i++) to[i] = 0.0;
      column[at] = to;
    }
    if (design.intercept && count < ROWS) std::fill(own.data() + count, own.data() + ROWS, 0.0);
    else if (design.intercept) std::fill_n(own.data(), ROWS, 1.0);
    for (int32_t t = 0; t < design.terms; t++) {
      const Term& term = design.term[t];
      int32_t* to = code[t].data();
      if (term.bytes == 1) { auto* c = static_cast<const uint8_t*>(term.codes) + from; for (int64_t i = 0; i < count; i++) to[i] = c[i]; }
      else if (term.bytes == 2) { auto* c = static_cast<const int16_t*>(term.codes) + from; for (int64_t i = 0; i < count; i++) to[i] = c[i]; }
      else if (term.bytes == 4) { auto* c = static_cast<const int32_t*>(term.codes) + from; for (int64_t i = 0; i < count; i++) to[i] = c[i]; }
      else { auto* c = static_cast<const int64_t*>(term.codes) + from; for (int64_t i = 0; i < count; i++) to[i] = int32_t(c[i]); }
    }
  }

  double value(int32_t t, int64_t i) const {
    const double* v = design.term[t].value;
    return v ? v[first + i] : 1.0;
  }

  // eta (ROWS,), of coefficients theta
  void eta(const double* theta, double* out) const {
    if (design.offset) std::memcpy(out, design.offset + first, rows * 8);
    else std::fill_n(out, ROWS, 0.0);
    const double* b = theta + design.start;
    int64_t j = 0;
    for (; j + 4 <= dense; j += 4) {
      const double *x0 = column[j], *x1 = column[j + 1], *x2 = column[j + 2], *x3 = column[j + 3];
      const double b0 = b[j], b1 = b[j + 1], b2 = b[j + 2], b3 = b[j + 3];
      for (int64_t i = 0; i < rows; i++) out[i] += (x0[i] * b0 + x1[i] * b1) + (x2[i] * b2 + x3[i] * b3);
    }
    for (; j < dense; j++) {
      const double* x = column[j];
      for (int64_t i = 0; i < rows; i++) out[i] += x[i] * b[j];
    }
    for (int32_t t = 0; t < design.terms; t++) {
      const double* table = theta + design.term[t].start - 1;
      const int32_t* c = code[t].data();
      const double* v = design.term[t].value;
      if (v) { for (int64_t i = 0; i < rows; i++) if (c[i]) out[i] += table[c[i]] * v[first + i]; }
      else { for (int64_t i = 0; i < rows; i++) if (c[i]) out[i] += table[c[i]]; }
    }
  }

  // out += X' s, of s (ROWS,) with zeros beyond `rows`
  void pull(const double* s, double* out) const {
    for (int64_t j = 0; j < padded; j += TILE) {
      Vector sum[TILE] = {};
      for (int64_t i = 0; i < ROWS; i += WIDE) {
        const Vector each = *reinterpret_cast<const Vector*>(s + i);
        for (int64_t a = 0; a < TILE; a++) sum[a] += each * *reinterpret_cast<const Vector*>(column[j + a] + i);
      }
      for (int64_t a = 0; a < TILE && j + a < dense; a++)
        for (int64_t l = 0; l < WIDE; l++) out[design.start + j + a] += sum[a][l];
    }
    for (int32_t t = 0; t < design.terms; t++) {
      double* table = out + design.term[t].start - 1;
      const int32_t* c = code[t].data();
      const double* v = design.term[t].value;
      for (int64_t i = 0; i < rows; i++)
        if (c[i]) table[c[i]] += v ? s[i] * v[first + i] : s[i];
    }
  }
};

// out[a][b] += sum_i w_i left_a[i] right_b[i], a tile of columns at a time; of one design's own products the upper tiles alone
static void gram(const Block& left, const Block& right, const double* w, double* out, int64_t ld, bool same) {
  for (int64_t from = 0; from < left.rows; from += INNER)
    for (int64_t a = 0; a < left.padded; a += TILE)
      for (int64_t b = same ? a : 0; b < right.padded; b += TILE) {
        Vector sum[TILE][TILE] = {};
        for (int64_t i = from; i < from + INNER; i += WIDE) {
          const Vector weight = *reinterpret_cast<const Vector*>(w + i);
          Vector x[TILE];
          for (int64_t l = 0; l < TILE; l++) x[l] = *reinterpret_cast<const Vector*>(right.column[b + l] + i);
          for (int64_t k = 0; k < TILE; k++) {
            const Vector y = weight * *reinterpret_cast<const Vector*>(left.column[a + k] + i);
            for (int64_t l = 0; l < TILE; l++) sum[k][l] += y * x[l];
          }
        }
        for (int64_t k = 0; k < TILE && a + k < left.dense; k++)
          for (int64_t l = 0; l < TILE && b + l < right.dense; l++)
            if (!same || b + l >= a + k)
              for (int64_t e = 0; e < WIDE; e++) out[(a + k) * ld + b + l] += sum[k][l][e];
      }
}

// ---- the narrow part of the information: a small matrix, in the order dense columns, then each term's levels --------------------

struct Narrow {
  // where the columns of a design stand in the small matrix and in the whole one
  int64_t size;
  std::vector<int64_t> at;     // of each term in the small one; -1: it is wide
  std::vector<int64_t> place;  // small -> whole
  explicit Narrow(const Design& d) : size(d.intercept + d.columns), at(d.terms, -1) {
    for (int64_t j = 0; j < size; j++) place.push_back(d.place + j);
    for (int32_t t = 0; t < d.terms; t++) {
      const Term& term = d.term[t];
      if (term.levels > NARROW) continue;
      at[t] = size, size += term.levels;
      for (int64_t k = 0; k < term.levels; k++) place.push_back(term.place + k);
    }
  }
};

// the dense columns of each row beside each other, (ROWS, padded)
static void turned(const Block& block, double* out) {
  for (int64_t j = 0; j < block.padded; j++) {
    const double* x = block.column[j];
    for (int64_t i = 0; i < block.rows; i++) out[i * block.padded + j] = x[i];
  }
}

static void small_products(const Block& left, const Narrow& a, const double* across_left, const Block& right, const Narrow& b,
                           const double* across_right, const double* w, double* out, bool same) {
  const int64_t ld = b.size;
  gram(left, right, w, out, ld, same);
  const int64_t rows = left.rows;
  for (size_t t = 0; t < a.at.size(); t++) {
    if (a.at[t] < 0) continue;
    const int32_t* c = left.code[t].data();
    double* table = out + (a.at[t] - 1) * ld;
    for (int64_t i = 0; i < rows; i++) {  // a level by the dense columns of the other side
      if (!c[i]) continue;
      const double each = w[i] * left.value(int32_t(t), i);
      const double* x = across_right + i * right.padded;
      double* to = table + c[i] * ld;
      for (int64_t j = 0; j < right.dense; j++) to[j] += each * x[j];
    }
    for (size_t u = same ? t : 0; u < b.at.size(); u++) {
      if (b.at[u] < 0) continue;
      const int32_t* d = right.code[u].data();
      double* to = table + b.at[u] - 1;
      const bool plain = !left.design.term[t].value && !right.design.term[u].value;
      if (plain) { for (int64_t i = 0; i < rows; i++) if (c[i] && d[i]) to[c[i] * ld + d[i]] += w[i]; }
      else
        for (int64_t i = 0; i < rows; i++)
          if (c[i] && d[i]) to[c[i] * ld + d[i]] += w[i] * left.value(int32_t(t), i) * right.value(int32_t(u), i);
    }
  }
  if (same) return;
  for (size_t u = 0; u < b.at.size(); u++) {  // dense columns of the left by the levels of the right
    if (b.at[u] < 0) continue;
    const int32_t* d = right.code[u].data();
    for (int64_t i = 0; i < rows; i++) {
      if (!d[i]) continue;
      const double each = w[i] * right.value(int32_t(u), i);
      const double* x = across_left + i * left.padded;
      double* to = out + b.at[u] - 1 + d[i];
      for (int64_t j = 0; j < left.dense; j++) to[j * ld] += each * x[j];
    }
  }
}

// ---- parts of the rows on threads ------------------------------------------------------------------------------------------

static int64_t parts_of(int64_t n, int64_t numbers) {
  const int64_t fit = std::max<int64_t>(1, MOST / std::max<int64_t>(1, numbers));
  return std::max<int64_t>(1, std::min({PARTS, fit, (n + 4 * ROWS - 1) / (4 * ROWS)}));
}

template <class Work>
static void in_threads(int64_t parts, int threads, Work work) {
  threads = int(std::min<int64_t>(threads, parts));
  if (threads <= 1) {
    for (int64_t p = 0; p < parts; p++) work(p);
    return;
  }
  std::vector<std::thread> all;
  for (int k = 0; k < threads; k++)
    all.emplace_back([=] { for (int64_t p = k; p < parts; p += threads) work(p); });
  for (auto& each : all) each.join();
}

template <class Work>
static void blocks_of(int64_t part, int64_t parts, int64_t n, Work work) {
  const int64_t blocks = (n + ROWS - 1) / ROWS;
  for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; b++) work(b * ROWS, std::min(ROWS, n - b * ROWS));
}

// the parts' sums, added in order, where they belong in the whole
static void placed(const Narrow& a, const Narrow& b, const std::vector<double>& sums, int64_t parts, const Output& out) {
  const int64_t size = a.size * b.size;
  for (int64_t i = 0; i < a.size; i++)
    for (int64_t j = 0; j < b.size; j++) {
      double total = 0.0;
      for (int64_t p = 0; p < parts; p++) total += sums[p * size + i * b.size + j];
      out.A[a.place[i] * out.kept + b.place[j]] += total;
    }
}

// ---- wide terms: each thread sums the rows of its own range of levels ---------------------------------------------------------

static void wide_products(const Design& left, const Design& right, const double* w, const Output& out, bool same, int threads,
                          bool turned_round) {
  // every pair of a wide term of the left with what the right has: its dense columns, its narrow terms, its wide ones (once)
  const int64_t n = left.n;
  for (int32_t t = 0; t < left.terms; t++) {
    const Term& term = left.term[t];
    if (term.levels <= NARROW) continue;
    const bool gone = term.place < 0;
    in_threads(threads, threads, [&, t, gone](int64_t k) {
      const int64_t low = 1 + term.levels * k / threads, high = 1 + term.levels * (k + 1) / threads;
      Block a(left), b(right);
      std::vector<double> across(ROWS * b.padded);
      blocks_of(0, 1, n, [&](int64_t first, int64_t rows) {
        a.read(first, rows), b.read(first, rows);
        turned(b, across.data());
        const int32_t* c = a.code[t].data();
        for (int64_t i = 0; i < rows; i++) {
          if (c[i] < low || c[i] >= high) continue;
          const double own = a.value(t, i), each = w[first + i] * own;
          double* row = gone ? out.E + (c[i] - 1) * out.kept : out.A + (term.place + c[i] - 1) * out.kept;
          const double* x = across.data() + i * b.padded;
          for (int64_t j = 0; j < b.dense; j++) row[right.place + j] += each * x[j];
          for (int32_t u = 0; u < right.terms; u++) {
            const Term& other = right.term[u];
            const int32_t d = b.code[u][i];
            if (!d) continue;
            if (same && u == t) {
              if (gone) out.D[c[i] - 1] += each * own;
              else row[other.place + d - 1] += each * own;
              continue;
            }
            if (other.levels > NARROW) {
              if (other.place < 0) continue;  // that one sums the pair
              if (!gone && (turned_round || (same && u < t))) continue;
            }
            row[other.place + d - 1] += each * b.value(u, i);
          }
        }
      });
    });
  }
}

void cross(const Design& left, const Design& right, const double* w, const Output& out, int threads) {
  const bool same = &left == &right;
  const Narrow a(left), b(right);
  const int64_t parts = parts_of(left.n, a.size * b.size);
  std::vector<double> sums(parts * a.size * b.size, 0.0);
  in_threads(parts, threads, [&](int64_t part) {
    Block x(left), y(right);
    const Block& z = same ? x : y;
    std::vector<double> across_x(ROWS * x.padded), across_y(same ? 0 : ROWS * y.padded), weight(ROWS, 0.0);
    double* to = sums.data() + part * a.size * b.size;
    blocks_of(part, parts, left.n, [&](int64_t first, int64_t rows) {
      x.read(first, rows);
      if (left.terms || right.terms) turned(x, across_x.data());
      if (!same) {
        y.read(first, rows);
        if (left.terms || right.terms) turned(y, across_y.data());
      }
      std::memcpy(weight.data(), w + first, rows * 8);
      std::fill(weight.begin() + rows, weight.end(), 0.0);
      small_products(x, a, across_x.data(), z, b, same ? across_x.data() : across_y.data(), weight.data(), to, same);
    });
  });
  placed(a, b, sums, parts, out);
  wide_products(left, right, w, out, same, threads, false);
  if (!same) wide_products(right, left, w, out, false, threads, true);
}

void eta(const Design& design, const double* theta, double* out, int threads) {
  const int64_t parts = parts_of(design.n, 1);
  in_threads(parts, threads, [&](int64_t part) {
    Block x(design);
    std::vector<double> each(ROWS);
    blocks_of(part, parts, design.n, [&](int64_t first, int64_t rows) {
      x.read(first, rows);
      x.eta(theta, each.data());
      std::memcpy(out + first, each.data(), rows * 8);
    });
  });
}

void pull(const Design& design, const double* score, int64_t size, double* out, int threads) {
  const int64_t parts = parts_of(design.n, size);
  std::vector<double> sums(parts * size, 0.0);
  in_threads(parts, threads, [&](int64_t part) {
    Block x(design);
    std::vector<double> each(ROWS, 0.0);
    blocks_of(part, parts, design.n, [&](int64_t first, int64_t rows) {
      x.read(first, rows);
      std::memcpy(each.data(), score + first, rows * 8);
      std::fill(each.begin() + rows, each.end(), 0.0);
      x.pull(each.data(), sums.data() + part * size);
    });
  });
  for (int64_t p = 0; p < parts; p++)
    for (int64_t j = 0; j < size; j++) out[j] += sums[p * size + j];
}

// ---- value, score and curvature of each row, for the commonest families ----------------------------------------------------------

// y eta - log(1 + e^eta); score y - mu, minus the curvature mu (1 - mu). Where every row counts once, one logarithm is taken of
// the product of 512 factors 1 + e^-|eta| <= 2, and what rounding took from each, t - ((1 + t) - 1), is added to it
static double bernoulli(int64_t rows, const double* __restrict y, const double* __restrict count, const double* __restrict eta,
                        double* __restrict score, double* __restrict weight) {
  double value = 0.0, product = 1.0;
  if (count) {
#pragma omp simd reduction(+ : value)
    for (int64_t i = 0; i < rows; i++) {
      const double e = exponential(-std::fabs(eta[i])), one = 1.0 / (1.0 + e);
      value += count[i] * (y[i] * eta[i] - (std::max(eta[i], 0.0) + log_one_plus(e)));
      score[i] = count[i] * (y[i] - (eta[i] >= 0 ? one : e * one));
      weight[i] = count[i] * (e * one * one);
    }
    return value;
  }
#pragma omp simd reduction(+ : value) reduction(* : product)
  for (int64_t i = 0; i < rows; i++) {
    const double e = exponential(-std::fabs(eta[i])), u = 1.0 + e, one = 1.0 / u;
    product *= u;
    value += y[i] * eta[i] - (std::max(eta[i], 0.0) + (e - (u - 1.0)) * one);
    score[i] = y[i] - (eta[i] >= 0 ? one : e * one);
    weight[i] = e * one * one;
  }
  return value - std::log(product);
}

// sum of count log y!, of whole numbers up to 1024 from a table
static double log_factorials(int64_t rows, const double* y, const double* count) {
  static const std::vector<double> table = [] {
    std::vector<double> out(1025);
    for (int k = 0; k <= 1024; k++) out[k] = std::lgamma(k + 1.0);
    return out;
  }();
  double total = 0.0;
  for (int64_t i = 0; i < rows; i++) {
    const int k = y[i] >= 0.0 && y[i] <= 1024.0 ? int(y[i]) : -1;
    total += (count ? count[i] : 1.0) * (double(k) == y[i] ? table[k] : std::lgamma(y[i] + 1.0));
  }
  return total;
}

// y eta - e^eta - log y!; score y - mu, minus the curvature mu
static double poisson(int64_t rows, const double* __restrict y, const double* __restrict count, const double* __restrict eta,
                      double* __restrict score, double* __restrict weight) {
  const double constant = log_factorials(rows, y, count);
  double value = 0.0;
#pragma omp simd reduction(+ : value)
  for (int64_t i = 0; i < rows; i++) {
    const double mean = exponential(eta[i]);
    value += y[i] * eta[i] - mean;
    score[i] = y[i] - mean;
    weight[i] = mean;
  }
  if (!count) return value - constant;
  value = 0.0;
#pragma omp simd reduction(+ : value)
  for (int64_t i = 0; i < rows; i++) {
    value += count[i] * (y[i] * eta[i] - weight[i]);
    score[i] *= count[i];
    weight[i] *= count[i];
  }
  return value - constant;
}

double fused(const Design& design, int family, const double* y, const double* count, const double* theta, int64_t size,
             double* gradient, const Output* out, double* row_weight, int threads) {
  const Narrow narrow(design);
  const int64_t squared = out ? narrow.size * narrow.size : 0, numbers = 1 + size + squared;
  const int64_t parts = parts_of(design.n, numbers);
  std::vector<double> sums(parts * numbers, 0.0);
  in_threads(parts, threads, [&](int64_t part) {
    Block x(design);
    std::vector<double> linear(ROWS, 0.0), score(ROWS), weight(ROWS), across(ROWS * x.padded);
    double* to = sums.data() + part * numbers;
    blocks_of(part, parts, design.n, [&](int64_t first, int64_t rows) {
      x.read(first, rows);
      x.eta(theta, linear.data());
      to[0] += (family == 0 ? bernoulli : poisson)(rows, y + first, count ? count + first : nullptr, linear.data(), score.data(),
                                                   weight.data());
      std::fill(score.begin() + rows, score.end(), 0.0);
      std::fill(weight.begin() + rows, weight.end(), 0.0);
      x.pull(score.data(), to + 1);
      if (!out) return;
      if (row_weight) std::memcpy(row_weight + first, weight.data(), rows * 8);
      if (design.terms) turned(x, across.data());
      small_products(x, narrow, across.data(), x, narrow, across.data(), weight.data(), to + 1 + size, true);
    });
  });
  double value = 0.0;
  for (int64_t p = 0; p < parts; p++) {
    value += sums[p * numbers];
    for (int64_t j = 0; j < size; j++) gradient[j] += sums[p * numbers + 1 + j];
  }
  if (out) {
    std::vector<double> small(parts * squared);
    for (int64_t p = 0; p < parts; p++) std::copy_n(sums.data() + p * numbers + 1 + size, squared, small.data() + p * squared);
    placed(narrow, narrow, small, parts, *out);
    if (row_weight) wide_products(design, design, row_weight, *out, true, threads, false);
  }
  return value;
}

}  // namespace NAMESPACE
