// The core that a custom operator runs on.
#pragma once

#include "torch/torch.h"

inline uint32_t get_cpu_id() { return uint32_t(nkilite::core().id); }
inline uint32_t get_cpu_count() { return uint32_t(nkilite::core().count); }
