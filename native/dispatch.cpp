// The functions that Python calls, by the best instructions that the processor has.
#include "products.h"

#ifdef _WIN32
#define PUBLIC extern "C" __declspec(dllexport)
#else
#define PUBLIC extern "C" __attribute__((visibility("default")))
#endif

static int best() {
#ifdef VARIANTS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

static int level = best();

#ifdef VARIANTS
#define CALL(FUNCTION, ...) (level == 2 ? avx512::FUNCTION(__VA_ARGS__) : level == 1 ? avx2::FUNCTION(__VA_ARGS__) : baseline::FUNCTION(__VA_ARGS__))
#else
#define CALL(FUNCTION, ...) baseline::FUNCTION(__VA_ARGS__)
#endif

PUBLIC int thetahat_version() { return 6; }  // of these functions' arguments
PUBLIC int thetahat_level() { return level; }
PUBLIC void thetahat_set_level(int wanted) { level = wanted < best() ? wanted : best(); }  // for the tests

PUBLIC void thetahat_eta(const Design* design, const double* theta, double* out, int threads) {
  CALL(eta, *design, theta, out, threads);
}
PUBLIC void thetahat_pull(const Design* design, const double* score, int64_t size, double* out, int threads) {
  CALL(pull, *design, score, size, out, threads);
}
// right null: the products of one design with itself
PUBLIC void thetahat_cross(const Design* left, const Design* right, const double* w, const Output* out, int threads) {
  CALL(cross, *left, right ? *right : *left, w, *out, threads);
}
// out null: the gradient alone
PUBLIC double thetahat_fused(const Design* design, int family, const double* y, const double* count, const double* theta,
                             int64_t size, double* gradient, const Output* out, double* row_weight, int threads) {
  return CALL(fused, *design, family, y, count, theta, size, gradient, out, row_weight, threads);
}
PUBLIC int64_t thetahat_pattern(const Term* t, const Term* others, int many, int64_t n, const int64_t* always, int64_t width,
                                int64_t kept, int64_t* begin, int32_t* order, int64_t* indptr, int32_t* indices, int32_t* slot,
                                int64_t* fixed, int threads) {
  return CALL(pattern, *t, others, many, n, always, width, kept, begin, order, indptr, indices, slot, fixed, threads);
}
// D null: the right is not the design of t
PUBLIC void thetahat_gather(const Pattern* p, const Term* t, const Design* right, int first, const double* w, const int64_t* column,
                            double* values, double* D, int threads) {
  CALL(gather, *p, *t, *right, first, w, column, values, D, threads);
}
PUBLIC void thetahat_schur(int64_t levels, const int64_t* indptr, const int32_t* indices, const double* values, const double* d,
                           double* S, int64_t kept, int threads) {
  CALL(schur, levels, indptr, indices, values, d, S, kept, threads);
}
PUBLIC void thetahat_row_dots(int64_t levels, const int64_t* left_start, const int32_t* left_index, const double* left,
                              const int64_t* right_start, const int32_t* right_index, const double* right, const double* M,
                              int64_t kept, double* out, int threads) {
  CALL(row_dots, levels, left_start, left_index, left, right_start, right_index, right, M, kept, out, threads);
}
PUBLIC void thetahat_finite(int64_t n, const double* const* column, int64_t columns, uint8_t* out, int threads) {
  CALL(finite, n, column, columns, out, threads);
}
PUBLIC void thetahat_table(int64_t n, const double* x, double width, double first, int64_t degree, int64_t functions,
                           const double* coefficients, double* out, int threads) {
  CALL(table, n, x, width, first, degree, functions, coefficients, out, threads);
}
PUBLIC void thetahat_convolve(int64_t rows, int64_t height, int64_t width, int64_t channels, int64_t outputs, int64_t size,
                              const double* kernel, const double* in, double* out, int threads) {
  CALL(convolve, rows, height, width, channels, outputs, size, kernel, in, out, threads);
}
// past null: nothing is added
PUBLIC void thetahat_normalised(int64_t rows, int64_t images, int64_t places, int64_t channels, int64_t groups, const double* factor,
                                const double* n, const double* inverse, const double* past, double* slope, int threads) {
  CALL(normalised, rows, images, places, channels, groups, factor, n, inverse, past, slope, threads);
}
PUBLIC void thetahat_activate(int64_t images, int64_t places, int64_t channels, int64_t groups, const float* h, const float* s,
                              const float* b, float* y, float* mean, float* inverse, int threads) {
  CALL(activate, images, places, channels, groups, h, s, b, y, mean, inverse, threads);
}
PUBLIC void thetahat_activate_back(int64_t images, int64_t places, int64_t channels, int64_t groups, const float* h, const float* s,
                                   const float* b, const float* mean, const float* inverse, const float* slope, float* dh, float* ds,
                                   float* db, int threads) {
  CALL(activate_back, images, places, channels, groups, h, s, b, mean, inverse, slope, dh, ds, db, threads);
}
