// What the library reads of a design, and where sums go: plain structures, so that any language can call it.
#pragma once
#include <cstdint>

struct Term {           // a categorical term
  const void* codes;    // (n,) of each row: 0, the reference level; k, its k-th coefficient
  const double* value;  // (n,) that multiplies it, or null
  int64_t levels;
  int64_t start;        // of its coefficients in theta
  int64_t place;        // of its coefficients in A; -1: they are eliminated (rows of E and D)
  int32_t bytes;        // of a code: 1 (without a sign), 2, 4, 8
};

struct Design {
  int64_t n;
  const void* x;        // (n, columns)
  int64_t row_stride, column_stride;  // in numbers
  int64_t columns;
  const double* offset;  // (n,) or null
  const Term* term;
  int64_t start;        // of the intercept, or of the first dense column, in theta
  int64_t place;        // and in A
  int32_t terms;
  int32_t intercept;    // whether there is one: 0 or 1
  int32_t single;       // whether x is of float32
};

struct Output {         // A + A' - diag(A) is the block of what is kept
  double* A;            // (kept, kept)
  double* E;            // (levels, width), or null
  double* D;            // (levels,), or null
  const int64_t* column;  // (kept,) of what is kept, in E
  int64_t kept, width;
  int32_t sparse;       // whether the eliminated term is left out: `gather` sums it
};

struct Pattern {        // of the eliminated term's rows of E: what `pattern` finds
  const int64_t* begin;   // (levels + 1,)
  const int32_t* order;
  const int64_t* indptr;  // (levels + 1,)
  const int32_t* slot;    // (…, many)
  const int64_t* fixed;   // (levels, width)
  int64_t levels, width;
  int32_t many;
};

#define DECLARE(NAME)                                                                                                       \
  namespace NAME {                                                                                                          \
  void eta(const Design&, const double*, double*, int);                                                                     \
  void pull(const Design&, const double*, int64_t, double*, int);                                                           \
  void cross(const Design&, const Design&, const double*, const Output&, int);                                              \
  int64_t pattern(const Term&, const Term*, int32_t, int64_t, const int64_t*, int64_t, int64_t, int64_t*, int32_t*, int64_t*,    \
                  int32_t*, int32_t*, int64_t*, int);                                                                        \
  void gather(const Pattern&, const Term&, const Design&, int32_t, const double*, const int64_t*, double*, double*, int);    \
  void schur(int64_t, const int64_t*, const int32_t*, const double*, const double*, double*, int64_t, int);                 \
  void row_dots(int64_t, const int64_t*, const int32_t*, const double*, const int64_t*, const int32_t*, const double*,       \
                const double*, int64_t, double*, int);                                                                      \
  double fused(const Design&, int, const double*, const double*, const double*, int64_t, double*, const Output*, double*, int); \
  void finite(int64_t, const double* const*, int64_t, uint8_t*, int);                                                      \
  void table(int64_t, const double*, double, double, int64_t, int64_t, const double*, double*, int);                        \
  void convolve(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const double*, const double*, double*, int);          \
  void normalised(int64_t, int64_t, int64_t, int64_t, int64_t, const double*, const double*, const double*, const double*,  \
                  double*, int);                                                                                            \
  void activate(int64_t, int64_t, int64_t, int64_t, const float*, const float*, const float*, float*, float*, float*, int); \
  void activate_back(int64_t, int64_t, int64_t, int64_t, const float*, const float*, const float*, const float*,            \
                     const float*, const float*, float*, float*, float*, int);                                              \
  }
DECLARE(baseline)
DECLARE(avx2)
DECLARE(avx512)
#undef DECLARE
