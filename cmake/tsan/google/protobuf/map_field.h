// Found before protobuf's own in the `tsan` preset. Under ThreadSanitizer that one gives MapFieldBase
// two more members, which the distribution's library, compiled without it, knows nothing of.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#pragma push_macro("__SANITIZE_THREAD__")
#undef __SANITIZE_THREAD__
#include_next <google/protobuf/map_field.h>
#pragma pop_macro("__SANITIZE_THREAD__")
