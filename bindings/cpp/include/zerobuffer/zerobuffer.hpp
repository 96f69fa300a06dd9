/// zerobuffer for C++20: another process edits your data in place.
///
/// Header only, over the C interface (`zerobuffer.h`, libzerobuffer). Everything is in namespace
/// `zerobuffer`; what owns something is move-only and releases it in its destructor.
///
/// Functions throw a class derived from `zerobuffer::Error`; those whose name begins with `try_` return
/// a `Result` instead.
#pragma once

#if __cplusplus < 202002L
#error "zerobuffer needs C++20: compile with -std=c++20, or link to zerobuffer::zerobuffer in CMake, which asks for it"
#else
#include "bytes.hpp"   // IWYU pragma: export
#include "calls.hpp"   // IWYU pragma: export
#include "client.hpp"  // IWYU pragma: export
#include "config.hpp"  // IWYU pragma: export
#include "error.hpp"   // IWYU pragma: export
#include "factory.hpp" // IWYU pragma: export
#include "frame.hpp"   // IWYU pragma: export
#include "server.hpp"  // IWYU pragma: export
#include "v1.hpp"      // IWYU pragma: export
#endif
