package backend_test

import (
	"maps"
	"testing"

	"github.com/joulemux/joulemux/daemon/backend"
)

func TestHealthIsSummedUp(t *testing.T) {
	well, ill := backend.Backend{ID: "well", Healthy: true}, backend.Backend{ID: "ill"}
	dozing := backend.Backend{ID: "dozing", Healthy: true, Asleep: true}
	broken := backend.Backend{ID: "broken", Asleep: true}
	for _, c := range []struct {
		name   string
		all    backend.Snapshot
		status string
		each   map[string]string
	}{
		{"no backend at all is not healthy", nil, "unhealthy", map[string]string{}},
		{"all are healthy", backend.Snapshot{well}, "healthy", map[string]string{"well": "healthy"}},
		{"some are", backend.Snapshot{well, ill}, "degraded", map[string]string{"well": "healthy", "ill": "unhealthy"}},
		{"none is", backend.Snapshot{ill}, "unhealthy", map[string]string{"ill": "unhealthy"}},
		{"to sleep is no illness", backend.Snapshot{well, dozing}, "healthy", map[string]string{"well": "healthy", "dozing": "asleep"}},
		{"nor does it hide one", backend.Snapshot{broken}, "unhealthy", map[string]string{"broken": "unhealthy"}},
	} {
		if status, each := c.all.Health(); status != c.status || !maps.Equal(each, c.each) {
			t.Errorf("%s: got %s, %v", c.name, status, each)
		}
	}
}
