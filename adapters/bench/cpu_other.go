//go:build !unix

package bench

import "time"

// usedCPU is not known; no private server runs here either.
func usedCPU() time.Duration { return 0 }
