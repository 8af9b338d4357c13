package admin

import (
	"net/http"

	"github.com/doorward/doorward/internal/access"
)

// devicesView answers: which devices are known, and what is wrong with them?
type devicesView struct {
	Pick     DeviceFilter
	Sources  []DeviceSource
	Names    []string
	Rows     []DeviceInfo
	Matching int
}

func (a *api) devicePages() []uiPage {
	if a.Devices == nil {
		return nil
	}
	return []uiPage{
		{"GET /devices", "Devices", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			view := devicesView{Pick: DeviceFilter{Source: q.Get("source"), Owner: q.Get("owner"), Tier: q.Get("tier"), Failing: q.Get("failing")},
				Sources: a.Devices.Sources(), Names: a.Devices.Names()}
			if err := knownFilter(view.Pick, view.Sources, view.Names); err != nil {
				a.refuse(w, r, err)
				return
			}
			view.Rows, view.Matching = a.Devices.List(view.Pick, maxRows)
			a.render(w, r, http.StatusOK, "devices", "Devices", view)
		}},
		{"GET /device", "", func(w http.ResponseWriter, r *http.Request) {
			info := a.Devices.Show(r.URL.Query().Get("id"))
			if info == nil {
				a.refuse(w, r, errNoDevice)
				return
			}
			a.render(w, r, http.StatusOK, "device", "One device", deviceView{info, []fact{
				{"Managed", info.Managed}, {"Compliant", info.Compliant}, {"Disk encrypted", info.DiskEncrypted}, {"Tampered with", info.Jailbroken}}})
		}},
	}
}

// deviceView answers: what is known of the device, and what does it lack?
type deviceView struct {
	*DeviceInfo
	Facts []fact
}

type fact struct {
	Name  string
	Value access.Tri
}
