// Work on several threads: those of the OpenMP runtime that torch has brought into the process, whose idle threads wait
// actively for a while and would take the cores from threads of our own; else (macOS, Windows) threads of our own.

#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#ifdef __linux__
#include <dlfcn.h>
#endif

struct Runtime {  // the entry point of GNU's OpenMP, null where it is absent
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;

  static const Runtime& loaded() {
    static const Runtime runtime;
    return runtime;
  }

 private:
  Runtime() {
#ifdef __linux__
    parallel = reinterpret_cast<decltype(parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#endif
  }
};

// work(0) … work(parts - 1), each once, on at most so many threads. A thread takes the next part as it becomes free: where another
// process has one of the cores, the others do more
template <class Work>
void in_threads(int64_t parts, int threads, Work work) {
  if (parts < threads) threads = int(parts);
  if (threads <= 1) {
    for (int64_t p = 0; p < parts; p++) work(p);
    return;
  }
  struct Share {
    Work& work;
    const int64_t parts;
    std::atomic<int64_t> next{0};
    void take() { for (int64_t p; (p = next.fetch_add(1, std::memory_order_relaxed)) < parts;) work(p); }
  } share{work, parts};
  if (Runtime::loaded().parallel) {
    const auto own = [](void* all) { static_cast<Share*>(all)->take(); };
    Runtime::loaded().parallel(own, &share, unsigned(threads), 0);
    return;
  }
  std::vector<std::thread> others;
  for (int k = 1; k < threads; k++) others.emplace_back([&share] { share.take(); });
  share.take();
  for (auto& each : others) each.join();
}
