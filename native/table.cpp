// Functions of one number a row from their Chebyshev coefficients on intervals of one width: tabulated.py says which.
//
//     out[f][i] = sum over k of coefficients[interval of x_i][k][f] T_k(t_i),      t_i in [-1, 1] the place in the interval
//
// by Clenshaw's recurrence, functions side by side in a vector.

#include "products.h"
#include "team.h"

#include <algorithm>
#include <cmath>

namespace NAMESPACE {

constexpr int64_t SIDE = 8, WIDE = LANES;
typedef double Vector __attribute__((vector_size(LANES * 8), aligned(8)));

void table(int64_t n, const double* x, double width, double first, int64_t degree, int64_t functions, const double* coefficients,
           double* out, int threads) {
  constexpr int64_t ROWS = 4096;
  in_threads((n + ROWS - 1) / ROWS, threads, [&](int64_t part) {
    for (int64_t i = part * ROWS; i < std::min(n, (part + 1) * ROWS); i++) {
      const double place = x[i] / width, interval = std::floor(place), twice = 2.0 * (2.0 * (place - interval) - 1.0);
      const double* c = coefficients + int64_t(interval - first) * degree * SIDE;
      for (int64_t g = 0; g < functions; g += WIDE) {
        Vector one = {}, two = {};
        for (int64_t k = degree - 1; k > 0; k--) {
          const Vector next = *reinterpret_cast<const Vector*>(c + k * SIDE + g) + twice * one - two;
          two = one;
          one = next;
        }
        const Vector sum = *reinterpret_cast<const Vector*>(c + g) + 0.5 * twice * one - two;
        for (int64_t f = g; f < std::min(functions, g + WIDE); f++) out[f * n + i] = sum[f - g];
      }
    }
  });
}

}  // namespace NAMESPACE
