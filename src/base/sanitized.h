/* sanitized.h: SANITIZED: this is a build with AddressSanitizer, which maps terabytes of shadow
 * that count as data, has its own malloc, and asks the kernel for what nobody else does. */
#pragma once

#ifndef __has_feature
#define __has_feature(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
