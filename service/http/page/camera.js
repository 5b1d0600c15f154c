// The camera: a preview, and recordings of a few seconds as files.

const TYPES = ["video/webm;codecs=vp8", "video/webm", "video/mp4"];
const stop = (stream) => { for (const track of stream?.getTracks() ?? []) track.stop(); };

/** The camera behind a preview element. It stays open between recordings until `close`. */
export class Camera {
  constructor(preview) {
    this.preview = preview;
    this.stream = null;
    this.closed = 0;
  }

  get isOpen() { return Boolean(this.stream?.active); }

  /** Throws a problem that says what to do. */
  async open() {
    if (this.isOpen) return;
    if (!navigator.mediaDevices || !globalThis.MediaRecorder) {
      throw { title: "The camera cannot be used here", detail: "Browsers allow it only on https:// and on this machine (localhost, 127.0.0.1)." };
    }
    const { closed } = this;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } }, audio: false });
    } catch (error) {
      throw {
        title: error.name === "NotAllowedError" ? "The camera is not allowed" : "The camera does not start",
        detail: { NotAllowedError: "Allow the camera for this page in the browser's address bar.", NotFoundError: "No camera was found." }[error.name] ?? error.message,
      };
    }
    if (this.closed !== closed) { stop(stream); throw { title: "The camera was closed", detail: "" }; }
    stop(this.stream);  // where it was opened twice
    this.preview.srcObject = this.stream = stream;
    await this.preview.play().catch(() => {});
  }

  /** Record `seconds` and return a file; `tick(rest)` is called with the seconds that remain. */
  record(seconds, tick) {
    const type = TYPES.find((one) => MediaRecorder.isTypeSupported(one));
    const recorder = new MediaRecorder(this.stream, { mimeType: type, videoBitsPerSecond: 2_500_000 }), parts = [];
    const began = performance.now();
    return new Promise((resolve, reject) => {
      const timer = setInterval(() => {
        const rest = seconds - (performance.now() - began) / 1000;
        tick(Math.max(0, rest));
        if (rest <= 0 && recorder.state === "recording") recorder.stop();
      }, 50);
      recorder.ondataavailable = (event) => { if (event.data.size) parts.push(event.data); };
      recorder.onstop = () => {
        clearInterval(timer);
        const plain = recorder.mimeType.split(";")[0], name = `recording-${new Date().toISOString().slice(11, 23).replace(/[:.]/g, "-")}.${plain.split("/")[1]}`;
        if (parts.length) resolve(new File(parts, name, { type: plain }));
        else reject({ title: "The camera sent no pictures", detail: "Close it and open it again." });
      };
      recorder.onerror = () => { clearInterval(timer); reject({ title: "The recording failed", detail: "Close the camera and open it again." }); };
      recorder.start();
    });
  }

  close() {
    this.closed += 1;
    stop(this.stream);
    this.stream = this.preview.srcObject = null;
  }
}
