/// zerobuffer for C++20: another process edits your data in place.
///
/// Header only, over the C interface (`zerobuffer.h`, libzerobuffer). Everything is in namespace
/// `zerobuffer`; what owns something is move-only and gives it back in its destructor.
///
/// Functions throw a class derived from `zerobuffer::Error`; those whose name begins with `try_` return
/// a `Result` instead.
#pragma once

#include "client.hpp"  // IWYU pragma: export
#include "config.hpp"  // IWYU pragma: export
#include "error.hpp"   // IWYU pragma: export
#include "factory.hpp" // IWYU pragma: export
#include "frame.hpp"   // IWYU pragma: export
#include "server.hpp"  // IWYU pragma: export
#include "v1.hpp"      // IWYU pragma: export
