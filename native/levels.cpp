// The rows of an information that belong to the levels of one wide term, which is eliminated: sparse beside other wide terms.
//
//     E_l = sum over the rows i of level l of w_i x_i,      D_l = sum of w_i,      S = A - E' diag(1/D) E
//
// Which numbers of E are not zero depends on the codes alone: `pattern` finds it once, `gather` sums into it for any weights.
// Every level belongs to one thread, which adds its rows in their order: the answer does not depend on the number of threads.

#include "products.h"
#include "team.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace NAMESPACE {

static int64_t code_of(const Term& term, int64_t i) {
  switch (term.bytes) {
    case 1: return static_cast<const uint8_t*>(term.codes)[i];
    case 2: return static_cast<const int16_t*>(term.codes)[i];
    case 4: return static_cast<const int32_t*>(term.codes)[i];
    default: return static_cast<const int64_t*>(term.codes)[i];
  }
}

// the levels of each thread, so that their rows are as many
static int64_t share(const int64_t* begin, int64_t levels, int64_t k, int64_t threads) {
  if (k == threads) return levels;
  return std::lower_bound(begin, begin + levels, begin[levels] * k / threads) - begin;
}

// The pattern of E, its dense columns (`always`, rising) first of all known: begin (levels + 1,) of each level in `order`, its rows;
// indptr (levels + 1,) and indices, the columns of each row of E, rising; slot (rows in order, many), where of the level's row the
// code of each other term is (-1: its reference level); fixed (levels, width), where among all numbers the dense columns are.
int64_t pattern(const Term& t, const Term* others, int32_t many, int64_t n, const int64_t* always, int64_t width, int64_t kept,
                int64_t* begin, int32_t* order, int64_t* indptr, int32_t* indices, int32_t* slot, int64_t* fixed, int threads) {
  const int64_t levels = t.levels;
  threads = int(std::max<int64_t>(1, std::min<int64_t>(threads, levels)));
  std::fill(begin, begin + levels + 1, 0);
  for (int64_t i = 0; i < n; i++) begin[code_of(t, i)]++;  // of level l at l + 1, of the reference at 0
  begin[0] = 0;
  for (int64_t l = 0; l < levels; l++) begin[l + 1] += begin[l];
  std::vector<int64_t> place(threads), found(threads);
  in_threads(threads, threads, [&](int64_t thread) {
    const int64_t low = share(begin, levels, thread, threads), high = share(begin, levels, thread + 1, threads);
    std::vector<int64_t> next(begin + low, begin + high);
    for (int64_t i = 0; i < n; i++) {
      const int64_t l = code_of(t, i) - 1;
      if (low <= l && l < high) order[next[l - low]++] = int32_t(i);
    }
    const int64_t words = (kept + 63) / 64;
    std::vector<uint64_t> dense(words, 0), set(words);
    for (int64_t j = 0; j < width; j++) dense[always[j] / 64] |= uint64_t(1) << always[j] % 64;
    std::vector<int32_t> local(kept), touched;
    int64_t count = place[thread] = low * width + begin[low] * many;
    for (int64_t l = low; l < high; l++) {
      const int64_t from = begin[l], to = begin[l + 1], first = count;
      const bool few = words > 8 * (width + (to - from) * many);  // then sorting is cheaper than going through all columns
      touched.clear();
      if (few) touched.insert(touched.end(), always, always + width);
      else set = dense;
      for (int32_t u = 0; u < many; u++)
        for (int64_t r = from; r < to; r++) {
          const int64_t d = code_of(others[u], order[r]), at = others[u].place + d - 1;
          slot[r * many + u] = d ? int32_t(at) : -1;
          if (d && few) touched.push_back(int32_t(at));
          else if (d) set[at / 64] |= uint64_t(1) << at % 64;
        }
      if (few) {
        std::sort(touched.begin(), touched.end());
        touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
        for (const int32_t at : touched) local[at] = int32_t(count - first), indices[count++] = at;
      } else {
        for (int64_t k = 0; k < words; k++)
          for (uint64_t left = set[k]; left; left &= left - 1) {
            const int32_t at = int32_t(k * 64 + __builtin_ctzll(left));
            local[at] = int32_t(count - first), indices[count++] = at;
          }
      }
      for (int64_t r = from * many; r < to * many; r++)
        if (slot[r] >= 0) slot[r] = local[slot[r]];
      for (int64_t j = 0; j < width; j++) fixed[l * width + j] = local[always[j]];
      indptr[l + 1] = count - first;
    }
    found[thread] = count - place[thread];
  });
  int64_t count = 0;
  for (int thread = 0; thread < threads; thread++) {
    std::memmove(indices + count, indices + place[thread], found[thread] * 4);
    count += found[thread];
  }
  indptr[0] = 0;
  for (int64_t l = 0; l < levels; l++) {
    for (int64_t j = 0; j < width; j++) fixed[l * width + j] += indptr[l];
    indptr[l + 1] += indptr[l];
  }
  return count;
}

// values += the rows of the eliminated term t by the columns of the right, of which the other terms' slots begin at `first`; and where
// it is t's own design, D += its diagonal
void gather(const Pattern& p, const Term& t, const Design& right, int32_t first, const double* w, const int64_t* column, double* values,
            double* D, int threads) {
  const int64_t dense = right.intercept + right.columns;
  in_threads(threads, threads, [&](int64_t thread) {
    std::vector<double> sum(dense + 1), each;
    for (int64_t l = share(p.begin, p.levels, thread, threads); l < share(p.begin, p.levels, thread + 1, threads); l++) {
      const int64_t from = p.begin[l], rows = p.begin[l + 1] - from;
      const int32_t* order = p.order + from;
      each.resize(rows);
      double whole = 0.0, square = 0.0;
      for (int64_t r = 0; r < rows; r++) {
        const double v = t.value ? t.value[order[r]] : 1.0;
        whole += each[r] = w[order[r]] * v;
        square += each[r] * v;
      }
      if (D) D[l] += square;
      if (right.intercept) sum[0] = whole;
      for (int64_t j = 0; j < right.columns; j++) {
        double total = 0.0;
        if (right.single) {
          const float* x = static_cast<const float*>(right.x) + j * right.column_stride;
          for (int64_t r = 0; r < rows; r++) total += each[r] * x[order[r] * right.row_stride];
        } else {
          const double* x = static_cast<const double*>(right.x) + j * right.column_stride;
          for (int64_t r = 0; r < rows; r++) total += each[r] * x[order[r] * right.row_stride];
        }
        sum[right.intercept + j] = total;
      }
      for (int64_t j = 0; j < dense; j++) values[p.fixed[l * p.width + column[right.place + j]]] += sum[j];
      int32_t u = first;
      for (int32_t k = 0; k < right.terms; k++) {
        const Term& other = right.term[k];
        if (other.place < 0) continue;
        const int32_t* slot = p.slot + from * p.many + u++;
        double* to = values + p.indptr[l];
        for (int64_t r = 0; r < rows; r++)
          if (slot[r * p.many] >= 0) to[slot[r * p.many]] += other.value ? each[r] * other.value[order[r]] : each[r];
      }
    }
  });
}

// S -= E' diag(1/d) E, the lower triangle, of a sparse E in rows whose columns rise
void schur(int64_t levels, const int64_t* indptr, const int32_t* indices, const double* values, const double* d, double* S,
           int64_t kept, int threads) {
  std::vector<int32_t> owner(kept);
  for (int64_t j = 0; j < kept; j++) owner[j] = int32_t(j % threads);
  in_threads(threads, threads, [&](int64_t k) {  // a thread the rows of S that leave remainder k
    for (int64_t l = 0; l < levels; l++) {
      const int64_t first = indptr[l];
      for (int64_t a = first; a < indptr[l + 1]; a++) {
        if (owner[indices[a]] != k) continue;
        const double ratio = values[a] / d[l];
        double* to = S + int64_t(indices[a]) * kept;
        for (int64_t b = first; b <= a; b++) to[indices[b]] -= ratio * values[b];
      }
    }
  });
}

// out[l] = sum_ij left[l][i] M[i][j] right[l][j], of sparse rows; of a symmetric M and right = left the lower triangle is read
void row_dots(int64_t levels, const int64_t* left_start, const int32_t* left_index, const double* left, const int64_t* right_start,
              const int32_t* right_index, const double* right, const double* M, int64_t kept, double* out, int threads) {
  const bool half = left == right && left_start == right_start && left_index == right_index;
  in_threads(threads, threads, [&](int64_t k) {
    for (int64_t l = levels * k / threads; l < levels * (k + 1) / threads; l++) {
      double total = 0.0;
      for (int64_t a = left_start[l]; a < left_start[l + 1]; a++) {
        const double* row = M + int64_t(left_index[a]) * kept;
        double dot = half ? 0.5 * row[left_index[a]] * left[a] : 0.0;
        for (int64_t b = right_start[l]; b < (half ? a : right_start[l + 1]); b++) dot += row[right_index[b]] * right[b];
        total += half ? 2.0 * left[a] * dot : left[a] * dot;
      }
      out[l] = total;
    }
  });
}

}  // namespace NAMESPACE
