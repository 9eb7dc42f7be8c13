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

PUBLIC int thetahat_version() { return 1; }  // of these functions' arguments
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
