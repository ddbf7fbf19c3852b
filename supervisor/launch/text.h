// Memory and text without a C library.
#pragma once

#include <linux/mman.h>
#include <stddef.h>
#include <stdint.h>

#include "system_call.h"

enum { CHUNK = 65536 };

// Large or rarely used variables are behind all others, so that a start touches few pages.
#define APART __attribute__((section(".bss.apart")))

static size_t length_of(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

static int is_same(const char *one, const char *other, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (one[i] != other[i])
			return 0;
	return 1;
}

static void copy(void *target, const void *source, size_t length)
{
	char *to = target;
	const char *from = source;

	if (to <= from)
		for (size_t i = 0; i < length; i++)
			to[i] = from[i];
	else
		while (length-- > 0)
			to[length] = from[length];
}

// Write at least `least` digits of a number in `base`, without a NUL. Returns their number.
static size_t write_digits(char *to, uint64_t number, unsigned int base, size_t least)
{
	char digits[24];
	size_t count = 0, i;

	do
		digits[count++] = "0123456789abcdef"[number % base];
	while ((number /= base) > 0);
	for (i = 0; i + count < least; i++)
		to[i] = '0';
	while (count > 0)
		to[i++] = digits[--count];
	return i;
}

// Return new pages, or NULL. The exec releases them.
static void *new_pages(size_t size)
{
	const long pages = call_six(__NR_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return pages < 0 && pages > -4096 ? NULL : (void *)pages;
}

struct chunk {
	struct chunk *before;
	size_t size;
};

static struct {
	char *next;
	size_t left;
	struct chunk *last;
	char *kept_next; // the state to which a release returns
	size_t kept_left;
} memory;

static int add_chunk(size_t least)
{
	const size_t size = least + sizeof(struct chunk) > CHUNK ? least + sizeof(struct chunk) : CHUNK;
	struct chunk *chunk = new_pages(size);

	if (!chunk)
		return 0;
	*chunk = (struct chunk){ memory.last, size };
	memory.last = chunk;
	memory.next = (char *)(chunk + 1);
	memory.left = size - sizeof *chunk;
	return 1;
}

// Return memory that lasts until the exec, or NULL.
static void *new_memory(size_t size)
{
	static _Alignas(4096) char first[8192] APART; // enough for most plans, whose parts share pages here
	char *found;

	if (!memory.next) {
		memory.next = first;
		memory.left = sizeof first;
	}
	size = (size + 15) & ~(size_t)15;
	if (size > memory.left && !add_chunk(size))
		return NULL;
	found = memory.next;
	memory.next += size;
	memory.left -= size;
	return found;
}

// For a process that carries out a plan more than once: keep what is there, and have as much as most plans need.
static inline int keep_memory(void)
{
	if (!add_chunk(CHUNK / 2))
		return 0;
	memory.last = NULL;
	memory.kept_next = memory.next;
	memory.kept_left = memory.left;
	return 1;
}

// Release the memory since then.
static inline void release_memory(void)
{
	while (memory.last) {
		const struct chunk chunk = *memory.last;

		call(__NR_munmap, (long)memory.last, (long)chunk.size, 0, 0);
		memory.last = chunk.before;
	}
	memory.next = memory.kept_next;
	memory.left = memory.kept_left;
}
