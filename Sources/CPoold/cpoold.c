#include "cpoold.h"
