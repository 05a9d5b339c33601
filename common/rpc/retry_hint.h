#pragma once

namespace ddpo {

// Trailing metadata of a RESOURCE_EXHAUSTED answer: milliseconds after which it is worth trying
// again, a decimal number.
inline constexpr char kRetryAfterKey[] = "retry-after-ms";

}  // namespace ddpo
