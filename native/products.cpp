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
#include "team.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace NAMESPACE {

constexpr int64_t ROWS = 512;   // of a block: 32 columns of it are 128 KiB, a part of a second-level cache
constexpr int64_t APART = ROWS + 8;  // from a column of a block to the next: a power of 2 would put all in one set of the cache
constexpr int64_t TILE = 4;     // columns by columns whose sums are held in registers
constexpr int64_t NARROW = 64;  // levels of a term whose products are summed like those of columns
constexpr int64_t PARTS = 32;   // of the rows, each with sums of its own
constexpr int64_t FEWEST = 8;   // of them, where the rows are many
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
  std::vector<double> own;                 // [padded][APART]
  std::vector<std::vector<int32_t>> code;  // of each term
  std::vector<const double*> column;
  std::vector<int64_t> first_of;           // of each term in `tables` and `pulled`: a place a level, the reference first
  std::vector<double> tables, pulled;

  explicit Block(const Design& d)
      : design(d), dense(d.intercept + d.columns), padded((dense + TILE - 1) / TILE * TILE),
        own(padded * APART, 0.0), code(d.terms, std::vector<int32_t>(ROWS)), column(padded) {
    for (int64_t j = 0; j < padded; j++) column[j] = own.data() + j * APART;
    if (d.intercept) std::fill_n(own.data(), ROWS, 1.0);
    int64_t all = 0;
    for (int32_t t = 0; t < d.terms; t++) first_of.push_back(all), all += d.term[t].levels + 1;
    tables.assign(all, 0.0), pulled.assign(all, 0.0);
  }

  void read(int64_t from, int64_t count) {
    first = from, rows = count;
    const bool by_rows = design.column_stride == 1 && design.row_stride > 1 && !design.single;
    if (by_rows) turn(from, count);
    for (int64_t j = by_rows ? design.columns : 0; j < design.columns; j++) {
      const int64_t at = j + design.intercept;
      double* to = own.data() + at * APART;
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

  // columns of rows that lie one after another: eight rows at a time, whose numbers share lines of the cache
  void turn(int64_t from, int64_t count) {
    const double* x = static_cast<const double*>(design.x) + from * design.row_stride;
    double* to = own.data() + design.intercept * APART;
    for (int64_t i = 0; i < count; i += 8)
      for (int64_t j = 0; j < design.columns; j++)
        for (int64_t k = i; k < std::min(i + 8, count); k++) to[j * APART + k] = x[k * design.row_stride + j];
    for (int64_t j = 0; j < design.columns; j++) std::fill(to + j * APART + count, to + j * APART + ROWS, 0.0);
  }

  // Column j of the block after this one, where it lies in memory; else null. What is asked for while the processor computes is in
  // its cache when it is read: of itself it reads ahead to the end of a page only, and a column of a block is one.
  const double* next(int64_t j) const {
    const int64_t k = j - design.intercept;
    if (design.single || design.row_stride != 1 || k < 0 || k >= design.columns || first + 2 * ROWS > design.n) return nullptr;
    return static_cast<const double*>(design.x) + first + ROWS + k * design.column_stride;
  }

  double value(int32_t t, int64_t i) const {
    const double* v = design.term[t].value;
    return v ? v[first + i] : 1.0;
  }

  // the coefficients of the terms, each after the 0 of its reference level: once a theta
  void take(const double* theta) {
    for (int32_t t = 0; t < design.terms; t++)
      std::copy_n(theta + design.term[t].start, design.term[t].levels, tables.data() + first_of[t] + 1);
  }

  // eta (ROWS,), of coefficients theta, which were taken
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
      const double* table = tables.data() + first_of[t];
      const int32_t* c = code[t].data();
      const double* v = design.term[t].value;
      if (v) { for (int64_t i = 0; i < rows; i++) out[i] += table[c[i]] * v[first + i]; }
      else { for (int64_t i = 0; i < rows; i++) out[i] += table[c[i]]; }
    }
  }

  // out += X' s, of s (ROWS,) with zeros beyond `rows`; of the terms when `give` is called
  void pull(const double* s, double* out) {
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
      double* table = pulled.data() + first_of[t];
      const int32_t* c = code[t].data();
      const double* v = design.term[t].value;
      if (v) { for (int64_t i = 0; i < rows; i++) table[c[i]] += s[i] * v[first + i]; }
      else { for (int64_t i = 0; i < rows; i++) table[c[i]] += s[i]; }
    }
  }

  // out += what `pull` gathered for the terms
  void give(double* out) const {
    for (int32_t t = 0; t < design.terms; t++)
      for (int64_t k = 0; k < design.term[t].levels; k++) out[design.term[t].start + k] += pulled[first_of[t] + 1 + k];
  }
};

// out[a][b] += sum_i w_i left_a[i] right_b[i], a tile of columns at a time; of one design's own products the upper tiles alone
static void gram(const Block& left, const Block& right, const double* w, double* out, int64_t ld, bool same) {
  const int64_t rows = (left.rows + WIDE - 1) / WIDE * WIDE;
  for (int64_t a = 0; a < left.padded; a += TILE)
    for (int64_t b = same ? a : 0; b < right.padded; b += TILE) {
      const int64_t turn = (b - a) / TILE;  // a tile asks for one column of the next block
      const double* next = same && turn < TILE ? left.next(a + turn) : nullptr;
      Vector sum[TILE][TILE] = {};
      for (int64_t i = 0; i < rows; i += WIDE) {
        if (next) __builtin_prefetch(next + i, 0, 3);
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

// ---- where the sums of a design's columns are kept -------------------------------------------------------------------------------

struct Layout {
  // Columns of the sums: the dense columns, then each narrow term's levels, the reference (0) first: what it gathers is left
  // out in the end, which costs less than to ask of each row. Rows of the sums: the same, then the levels of the wide terms.
  int64_t dense, columns, rows;
  std::vector<int64_t> at;     // of each term's reference level among the rows
  std::vector<bool> wide;      // of each term
  std::vector<int64_t> place;  // of each row in A; NOWHERE: a reference level; GONE - k: row k of what is eliminated
  static constexpr int64_t NOWHERE = -1, GONE = -2, ABSENT = -1;

  // sparse: without the eliminated term, whose rows `gather` sums
  explicit Layout(const Design& d, bool sparse = false) : dense(d.intercept + d.columns), columns(dense), at(d.terms), wide(d.terms) {
    for (int64_t j = 0; j < dense; j++) place.push_back(d.place + j);
    for (int pass = 0; pass < 2; pass++)
      for (int32_t t = 0; t < d.terms; t++) {
        wide[t] = d.term[t].levels > NARROW;
        if (wide[t] != (pass == 1)) continue;
        at[t] = ABSENT;
        if (sparse && d.term[t].place < 0) continue;
        at[t] = int64_t(place.size());
        place.push_back(NOWHERE);
        for (int64_t k = 0; k < d.term[t].levels; k++) place.push_back(d.term[t].place < 0 ? GONE - k : d.term[t].place + k);
        if (pass == 0) columns = int64_t(place.size());
      }
    rows = int64_t(place.size());
  }
  bool any_wide() const { return rows > columns; }
};

// the sums of one part of the rows: (rows of the left, columns of the right, and one for the diagonal of wide terms)
struct Sizes {
  int64_t across, own;
  Sizes(const Layout& a, const Layout& b) : across(b.columns + 1), own(a.rows * (b.columns + 1) + WIDE) {}
};

// the dense columns of each row beside each other, (ROWS, lanes), zeros beyond them
static int64_t lanes_of(const Block& block) { return (block.dense + WIDE - 1) / WIDE * WIDE; }
static void turned(const Block& block, double* out) {
  const int64_t lanes = lanes_of(block);
  for (int64_t j = 0; j < block.dense; j++) {
    const double* x = block.column[j];
    for (int64_t i = 0; i < block.rows; i++) out[i * lanes + j] = x[i];
  }
}

// the levels of the left's terms by the dense columns and the narrow terms of the right
static void term_products(const Block& left, const Layout& a, const Block& right, const Layout& b, const double* turned_right,
                          const double* w, double* out, bool same, bool wide_alone) {
  const int64_t across = Sizes(a, b).across, rows = left.rows, lanes = lanes_of(right);
  std::vector<double> times(ROWS);
  for (size_t t = 0; t < a.at.size(); t++) {
    if ((wide_alone && !a.wide[t]) || a.at[t] == Layout::ABSENT) continue;
    const int32_t* c = left.code[t].data();
    const double* v = left.design.term[t].value;
    double* table = out + a.at[t] * across;
    for (int64_t i = 0; i < rows; i++) times[i] = v ? w[i] * v[left.first + i] : w[i];
    for (int64_t i = 0; i < rows; i++) {
      double* to = table + c[i] * across;
      const double* x = turned_right + i * lanes;
      for (int64_t j = 0; j < lanes; j += WIDE)
        *reinterpret_cast<Vector*>(to + j) += times[i] * *reinterpret_cast<const Vector*>(x + j);
    }
    if (same && a.wide[t])
      for (int64_t i = 0; i < rows; i++) table[c[i] * across + across - 1] += v ? times[i] * v[left.first + i] : times[i];
    for (size_t u = same && !a.wide[t] ? t : 0; u < b.at.size(); u++) {
      if (b.wide[u]) continue;
      const int32_t* d = right.code[u].data();
      const double* z = right.design.term[u].value;
      double* to = table + b.at[u];
      if (z) { for (int64_t i = 0; i < rows; i++) to[c[i] * across + d[i]] += times[i] * z[right.first + i]; }
      else { for (int64_t i = 0; i < rows; i++) to[c[i] * across + d[i]] += times[i]; }
    }
  }
}

// the dense columns of the left by the narrow terms of the right
static void dense_by_terms(const Block& left, const Layout& a, const double* turned_left, const Block& right, const Layout& b,
                           const double* w, double* out) {
  const int64_t across = Sizes(a, b).across, lanes = lanes_of(left);
  for (size_t u = 0; u < b.at.size(); u++) {
    if (b.wide[u]) continue;
    const int32_t* d = right.code[u].data();
    const double* z = right.design.term[u].value;
    for (int64_t i = 0; i < left.rows; i++) {
      const double each = z ? w[i] * z[right.first + i] : w[i];
      double* to = out + b.at[u] + d[i];
      for (int64_t j = 0; j < left.dense; j++) to[j * across] += each * turned_left[i * lanes + j];
    }
  }
}

// ---- parts of the rows ------------------------------------------------------------------------------------------

static int64_t parts_of(int64_t n, int64_t numbers) {
  const int64_t each = std::max<int64_t>(1, numbers), fit = std::max<int64_t>(1, MOST / each);
  const int64_t worth = std::max<int64_t>(FEWEST, n / (4 * each));  // beyond, adding up the parts costs more than their rows
  return std::max<int64_t>(1, std::min({PARTS, fit, worth, (n + 4 * ROWS - 1) / (4 * ROWS)}));
}

template <class Work>
static void blocks_of(int64_t part, int64_t parts, int64_t n, Work work) {
  const int64_t blocks = (n + ROWS - 1) / ROWS;
  for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; b++) work(b * ROWS, std::min(ROWS, n - b * ROWS));
}

// the parts' sums, added in order, where they belong in the whole; wide_alone: but the rows of wide terms are empty
static void placed(const Layout& a, const Layout& b, const double* sums, int64_t parts, int64_t stride, const Output& out, bool same,
                   bool wide_alone) {
  const int64_t across = Sizes(a, b).across;
  for (int64_t i = wide_alone ? a.columns : 0; i < a.rows; i++) {
    const int64_t row = a.place[i];
    if (row == Layout::NOWHERE) continue;
    const bool gone = row <= Layout::GONE;
    double* to = gone ? out.E + (Layout::GONE - row) * out.width : out.A + row * out.kept;
    for (int64_t j = 0; j < across; j++) {
      const bool diagonal = j == across - 1;
      if (diagonal ? !same || i < a.columns : b.place[j] == Layout::NOWHERE) continue;
      double total = 0.0;
      for (int64_t p = 0; p < parts; p++) total += sums[p * stride + i * across + j];
      if (!diagonal) to[gone ? out.column[b.place[j]] : b.place[j]] += total;
      else if (gone) out.D[Layout::GONE - row] += total;
      else to[row] += total;
    }
  }
}

// ---- two wide terms: each thread sums the rows of its own range of levels ----------------------------------------------------------

static int32_t code_of(const Term& term, int64_t i) {
  switch (term.bytes) {
    case 1: return static_cast<const uint8_t*>(term.codes)[i];
    case 2: return static_cast<const int16_t*>(term.codes)[i];
    case 4: return static_cast<const int32_t*>(term.codes)[i];
    default: return int32_t(static_cast<const int64_t*>(term.codes)[i]);
  }
}

static void wide_by_wide(const Term& one, const Term& other, int64_t n, const double* w, const Output& out, int threads) {
  if (out.sparse && (one.place < 0 || other.place < 0)) return;  // `gather` sums those
  const Term& t = other.place < 0 ? other : one;  // whose levels are rows: the eliminated one's, if there is one
  const Term& u = other.place < 0 ? one : other;
  in_threads(threads, threads, [&](int64_t k) {
    const int64_t low = 1 + t.levels * k / threads, high = 1 + t.levels * (k + 1) / threads;
    for (int64_t i = 0; i < n; i++) {
      const int32_t c = code_of(t, i), d = code_of(u, i);
      if (c < low || c >= high || !d) continue;
      double* row = t.place < 0 ? out.E + (c - 1) * out.width : out.A + (t.place + c - 1) * out.kept;
      row[t.place < 0 ? out.column[u.place + d - 1] : u.place + d - 1] += w[i] * (t.value ? t.value[i] : 1.0) * (u.value ? u.value[i] : 1.0);
    }
  });
}

static void wide_pairs(const Design& left, const Design& right, const double* w, const Output& out, bool same, int threads) {
  for (int32_t t = 0; t < left.terms; t++)
    for (int32_t u = same ? t + 1 : 0; u < right.terms; u++)
      if (left.term[t].levels > NARROW && right.term[u].levels > NARROW)
        wide_by_wide(left.term[t], right.term[u], left.n, w, out, threads);
}

void cross(const Design& left, const Design& right, const double* w, const Output& out, int threads) {
  const bool same = &left == &right;
  const Layout a(left, out.sparse), b(right, out.sparse);
  const Sizes size(a, b), back(b, a);
  const bool turn_back = !same && b.any_wide();
  const int64_t stride = size.own + (turn_back ? back.own : 0), parts = parts_of(left.n, stride);
  std::vector<double> sums(parts * stride, 0.0);
  in_threads(parts, threads, [&](int64_t part) {
    Block x(left), own(right);
    const Block& y = same ? x : own;
    std::vector<double> turned_x(ROWS * lanes_of(x)), turned_y(ROWS * lanes_of(y)), weight(ROWS, 0.0);
    double* to = sums.data() + part * stride;
    blocks_of(part, parts, left.n, [&](int64_t first, int64_t rows) {
      x.read(first, rows);
      if (!same) own.read(first, rows);
      std::memcpy(weight.data(), w + first, rows * 8);
      std::fill(weight.begin() + rows, weight.end(), 0.0);
      gram(x, y, weight.data(), to, size.across, same);
      if (left.terms) turned(y, turned_y.data());
      term_products(x, a, y, b, turned_y.data(), weight.data(), to, same, false);
      if (same || !right.terms) return;
      turned(x, turned_x.data());
      dense_by_terms(x, a, turned_x.data(), y, b, weight.data(), to);
      if (turn_back) term_products(y, b, x, a, turned_x.data(), weight.data(), to + size.own, false, true);
    });
  });
  placed(a, b, sums.data(), parts, stride, out, same, false);
  if (turn_back) placed(b, a, sums.data() + size.own, parts, stride, out, false, true);
  wide_pairs(left, right, w, out, same, threads);
}

void eta(const Design& design, const double* theta, double* out, int threads) {
  const int64_t parts = parts_of(design.n, 1);
  in_threads(parts, threads, [&](int64_t part) {
    Block x(design);
    std::vector<double> each(ROWS);
    x.take(theta);
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
    x.give(sums.data() + part * size);
  });
  for (int64_t p = 0; p < parts; p++)
    for (int64_t j = 0; j < size; j++) out[j] += sums[p * size + j];
}

// whether every number of a column is finite: then 0 times each is 0, else NaN
void finite(int64_t n, const double* const* column, int64_t columns, uint8_t* out, int threads) {
  in_threads(columns, threads, [&](int64_t j) {
    const double* x = column[j];
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += 0.0 * x[i];
    out[j] = sum == 0.0;
  });
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
      value += count[i] * (y[i] * eta[i] - ((eta[i] > 0.0 ? eta[i] : 0.0) + log_one_plus(e)));
      score[i] = count[i] * (y[i] - (eta[i] >= 0 ? one : e * one));
      weight[i] = count[i] * (e * one * one);
    }
    return value;
  }
#pragma omp simd reduction(+ : value) reduction(* : product)
  for (int64_t i = 0; i < rows; i++) {
    const double e = exponential(-std::fabs(eta[i])), u = 1.0 + e, one = 1.0 / u;
    product *= u;
    value += y[i] * eta[i] - ((eta[i] > 0.0 ? eta[i] : 0.0) + (e - (u - 1.0)) * one);
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

// -r^2/2, r = y - eta: a normal response of variance 1, without its constant; score r, minus the curvature 1
static double squares(int64_t rows, const double* __restrict y, const double* __restrict count, const double* __restrict eta,
                      double* __restrict score, double* __restrict weight) {
  double value = 0.0;
#pragma omp simd reduction(+ : value)
  for (int64_t i = 0; i < rows; i++) {
    const double r = y[i] - eta[i], c = count ? count[i] : 1.0;
    value -= 0.5 * c * r * r;
    score[i] = c * r;
    weight[i] = c;
  }
  return value;
}

double fused(const Design& design, int family, const double* y, const double* count, const double* theta, int64_t size,
             double* gradient, const Output* out, double* row_weight, int threads) {
  const Layout layout(design, out && out->sparse);
  const int64_t squared = out ? Sizes(layout, layout).own : 0, across = Sizes(layout, layout).across, stride = 1 + size + squared;
  const int64_t parts = parts_of(design.n, stride);
  std::vector<double> sums(parts * stride, 0.0);
  in_threads(parts, threads, [&](int64_t part) {
    Block x(design);
    std::vector<double> linear(ROWS, 0.0), score(ROWS), weight(ROWS), turned_x(ROWS * lanes_of(x));
    double* to = sums.data() + part * stride;
    x.take(theta);
    blocks_of(part, parts, design.n, [&](int64_t first, int64_t rows) {
      x.read(first, rows);
      x.eta(theta, linear.data());
      to[0] += (family == 0 ? bernoulli : family == 1 ? poisson : squares)(rows, y + first, count ? count + first : nullptr, linear.data(), score.data(),
                                                   weight.data());
      std::fill(score.begin() + rows, score.end(), 0.0);
      std::fill(weight.begin() + rows, weight.end(), 0.0);
      x.pull(score.data(), to + 1);
      if (!out) return;
      if (row_weight) std::memcpy(row_weight + first, weight.data(), rows * 8);
      gram(x, x, weight.data(), to + 1 + size, across, true);
      if (design.terms) turned(x, turned_x.data());
      term_products(x, layout, x, layout, turned_x.data(), weight.data(), to + 1 + size, true, false);
    });
    x.give(to + 1);
  });
  double value = 0.0;
  for (int64_t p = 0; p < parts; p++) {
    value += sums[p * stride];
    for (int64_t j = 0; j < size; j++) gradient[j] += sums[p * stride + 1 + j];
  }
  if (out) {
    placed(layout, layout, sums.data() + 1 + size, parts, stride, *out, true, false);
    if (row_weight) wide_pairs(design, design, row_weight, *out, true, threads);
  }
  return value;
}

}  // namespace NAMESPACE
