-- wrk sends exactly COUNT requests with the body in the file BODY, then stops.
-- wrk itself only knows durations: its thread is stopped at the count, and an interrupt ends the main thread's sleep.
local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int, int);")
local SIGINT = 2

local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = os.getenv("HEADER_LENGTH")

local left = tonumber(os.getenv("COUNT"))
local whole = nil

request = function()
  whole = whole or wrk.format()
  if left == 0 then
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), SIGINT)
  end
  left = left - 1
  return whole
end
