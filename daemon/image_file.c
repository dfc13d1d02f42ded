// SPDX-License-Identifier: Apache-2.0
#include "image_file.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "ipc.h"

struct image_file {
	int fd;
	void *bytes; /* NULL: not mapped */
	size_t len;
};

static void image_file_release(void *ctx)
{
	struct image_file *file = ctx;

	if (file->bytes)
		munmap(file->bytes, file->len);
	closep(&file->fd);
	free(file);
}

static void image_file_freep(struct image_file **filep)
{
	if (*filep)
		image_file_release(*filep);
}

/* All pages at once: they are there, and each of them is about to be looked at. */
static int image_file_map(struct image_file *file)
{
	struct stat st;
	void *bytes;

	if (!ipc_memfd_is_sealed(file->fd))
		return -EPERM;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0 || st.st_size > (off_t)POLICY_IMAGE_MAX_BYTES)
		return -EBADMSG;
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file->fd, 0);
	if (bytes == MAP_FAILED)
		return -errno;
	file->bytes = bytes;
	file->len = (size_t)st.st_size;
	return 0;
}

int image_file_open(struct policy_image **imagep, int fd, const char **whyp)
{
	__attribute__((cleanup(image_file_freep))) struct image_file *file = malloc(sizeof(*file));
	struct policy_image_owner owner = {image_file_release, file};
	int r;

	*imagep = NULL;
	if (!file) {
		closep(&fd);
		return -ENOMEM;
	}
	*file = (struct image_file){.fd = fd};
	r = image_file_map(file);
	if (r == -EBADMSG && whyp)
		*whyp = "it is empty or too large";
	if (r == 0)
		r = policy_image_open_unchanging(imagep, file->bytes, file->len, &owner, whyp);
	if (r == 0)
		file = NULL;
	return r;
}

int image_file_fd(const struct policy_image *image)
{
	const struct policy_image_owner *owner = policy_image_owner(image);

	return owner->release == image_file_release ? ((const struct image_file *)owner->ctx)->fd : -1;
}
