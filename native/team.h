// Work on several threads: those of the OpenMP runtime that torch has brought into the process, whose idle threads wait
// actively for a while and would take the cores from threads of our own; else (macOS, Windows) threads of our own.

#pragma once

#include <cstdint>
#include <thread>
#include <vector>

#ifdef __linux__
#include <dlfcn.h>
#endif

struct Runtime {  // the entry points of GNU's OpenMP, null where it is absent
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*number)() = nullptr;
  int (*size)() = nullptr;

  static const Runtime& loaded() {
    static const Runtime runtime;
    return runtime;
  }

 private:
  Runtime() {
#ifdef __linux__
    find(parallel, "GOMP_parallel");
    find(number, "omp_get_thread_num");
    find(size, "omp_get_num_threads");
    if (!number || !size) parallel = nullptr;
#endif
  }

  template <class Function>
  static void find([[maybe_unused]] Function& function, [[maybe_unused]] const char* name) {
#ifdef __linux__
    function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
#endif
  }
};

// work(0) … work(parts - 1), each once, on at most so many threads
template <class Work>
void in_threads(int64_t parts, int threads, Work work) {
  if (parts < threads) threads = int(parts);
  if (threads <= 1) {
    for (int64_t p = 0; p < parts; p++) work(p);
    return;
  }
  struct Share {
    Work& work;
    int64_t parts;
    void of(int k, int team) const { for (int64_t p = k; p < parts; p += team) work(p); }
  } share{work, parts};
  if (Runtime::loaded().parallel) {
    const auto own = [](void* all) { static_cast<Share*>(all)->of(Runtime::loaded().number(), Runtime::loaded().size()); };
    Runtime::loaded().parallel(own, &share, unsigned(threads), 0);
    return;
  }
  std::vector<std::thread> others;
  for (int k = 1; k < threads; k++) others.emplace_back([&share, k, threads] { share.of(k, threads); });
  share.of(0, threads);
  for (auto& each : others) each.join();
}
