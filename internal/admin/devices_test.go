package admin

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// shelf is an inventory of devices whose ids are awkward to put into a URL.
type shelf struct{ asked []string }

var shelved = []string{"laptop-1", "a/b c%2f", "?id=x"}

func (s *shelf) Sources() []DeviceSource { return []DeviceSource{{ID: "corp", Devices: 3}} }
func (s *shelf) Names() []string         { return []string{"full", "healthy"} }

func (s *shelf) List(pick DeviceFilter, limit int) (list []DeviceInfo, matching int) {
	s.asked = append(s.asked, fmt.Sprintf("%+v %d", pick, limit))
	for _, id := range shelved[:min(limit, len(shelved))] {
		list = append(list, DeviceInfo{Device: access.Device{ID: id}})
	}
	return list, len(shelved)
}

func (s *shelf) Show(id string) *DeviceInfo {
	for _, known := range shelved {
		if known == id {
			return &DeviceInfo{Device: access.Device{ID: id}, Standings: []access.Standing{{Name: "healthy"}}}
		}
	}
	return nil
}

func TestDevicesOfTheAPI(t *testing.T) {
	s := &shelf{}
	d := newDesk(testToken)
	opts := Options{Devices: s}
	opts.Config.Token = access.NewSecret(testToken)
	d.Handler = New(opts)

	var list DeviceList
	rec := d.ask("GET", "/api/v1/devices?source=corp&failing=healthy&tier=none&owner=ann&limit=2", "")
	if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil || rec.Code != 200 || len(list.Devices) != 2 || list.Matching != 3 || len(list.Sources) != 1 || list.Time.IsZero() {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if want := "{Source:corp Owner:ann Tier:none Failing:healthy} 2"; len(s.asked) != 1 || s.asked[0] != want {
		t.Errorf("asked for %q, want %q", s.asked, want)
	}
	for path, status := range map[string]int{
		"/api/v1/devices": 200, "/api/v1/devices?failing=helthy": 400, "/api/v1/devices?tier=top": 400, "/api/v1/devices?source=crop": 400, "/api/v1/devices?limit=0": 400,
		"/api/v1/devices?limit=1001": 400, "/api/v1/devices/laptop-1": 200, "/api/v1/devices/laptop-2": 404,
		"/api/v1/devices/a%2Fb%20c%252f": 200, "/api/v1/devices/%3Fid=x": 200,
	} {
		if rec := d.ask("GET", path, ""); rec.Code != status {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
	if rec := d.ask("GET", "/api/v1/devices/laptop-1", ""); !strings.Contains(rec.Body.String(), `"standings"`) {
		t.Errorf("%s", rec.Body)
	}
	if rec := newDesk(testToken).ask("GET", "/api/v1/devices", ""); rec.Code != 404 {
		t.Errorf("without inventories: %d", rec.Code)
	}
}
