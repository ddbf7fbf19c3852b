// Parts of a program without a C library: what compilers call, and the reading of sealed memory.
#pragma once

#include "entry_point.h"
#include "walk.h"

#define F_GET_SEALS_ (1024 + 10)
#define ALL_SEALS 0xf // no further seals, no change of size or content

// Functions that a compiler may call implicitly.
__attribute__((used)) void *memcpy(void *to, const void *from, size_t size)
{
	copy(to, from, size);
	return to;
}

__attribute__((used)) void *memset(void *to, int byte, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((char *)to)[i] = (char)byte;
	return to;
}

static long number_of(const char *digits)
{
	long number = 0;

	while (*digits >= '0' && *digits <= '9')
		number = number * 10 + (*digits++ - '0');
	return number;
}

// Return the content of a sealed memfd, which is closed.
static const void *read_sealed(long fd, size_t largest, size_t *size)
{
	struct statx status;
	void *found;

	if (must(call(__NR_fcntl, fd, F_GET_SEALS_, 0, 0)) != ALL_SEALS)
		must(-EPERM);
	must(look_at((int)fd, &status));
	*size = status.stx_size;
	if (*size > largest)
		must(-EFBIG);
	found = must_have(new_memory(*size)); // not a mapping: a small plan shares a page with other memory
	if ((uint64_t)must(call(__NR_pread64, fd, (long)found, (long)*size, 0)) != *size)
		must(-EIO);
	close_fd(fd);
	return found;
}
