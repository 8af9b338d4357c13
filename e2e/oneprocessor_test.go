package e2e

import "testing"

// Where there is one processor, as a sidecar has, writes wait for each other (package
// yield), which the machine that runs these tests may have no reason for.
func TestWithOneProcessor(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1") // of the programs that the stories start
	t.Run("reloads", TestHundredReloadsUnderLoad)
	t.Run("upgrades", TestTwentyUpgradesUnderLoad)
	t.Run("WebSockets", TestAThousandWebSocketsEndWithinASecond)
}
