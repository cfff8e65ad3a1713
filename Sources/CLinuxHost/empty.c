#include "linux_host.h"
