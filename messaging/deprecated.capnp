# Types that no program sends any more. Old logs hold them, so they stay readable.
#
# Nothing here is ever changed or removed: see log.capnp for the rules.

@0x80ef1ec4889c2a63;

struct AndroidBuildInfo @0xfe2919d5c21f426c {
  board @0 :Text;
  bootloader @1 :Text;
  brand @2 :Text;
  device @3 :Text;
  display @4 :Text;
  fingerprint @5 :Text;
  hardware @6 :Text;
  host @7 :Text;
  id @8 :Text;
  manufacturer @9 :Text;
  model @10 :Text;
  product @11 :Text;
  radioVersion @12 :Text;
  serial @13 :Text;
  supportedAbis @14 :List(Text);
  tags @15 :Text;
  time @16 :Int64;
  type @17 :Text;
  user @18 :Text;
  versionCodename @19 :Text;
  versionRelease @20 :Text;
  versionSdk @21 :Int32;
  versionSecurityPatch @22 :Text;
}

struct AndroidSensor @0x9b513b93a887dbcd {
  id @0 :Int32;
  name @1 :Text;
  vendor @2 :Text;
  version @3 :Int32;
  handle @4 :Int32;
  type @5 :Int32;
  maxRange @6 :Float32;
  resolution @7 :Float32;
  power @8 :Float32;
  minDelay @9 :Int32;
  fifoReservedEventCount @10 :UInt32;
  fifoMaxEventCount @11 :UInt32;
  stringType @12 :Text;
  maxDelay @13 :Int32;
}

struct IosBuildInfo @0xd97e3b28239f5580 {
  appVersion @0 :Text;
  appBuild @1 :UInt32;
  osVersion @2 :Text;
  deviceModel @3 :Text;
}

struct AndroidCaptureResult @0xbcc3efbac41d2048 {
  sensitivity @0 :Int32;
  frameDuration @1 :Int64;
  exposureTime @2 :Int64;
  rollingShutterSkew @3 :UInt64;
  colorCorrectionTransform @4 :List(Int32);
  colorCorrectionGains @5 :List(Float32);
  displayRotation @6 :Int8;
}

struct LateralINDIState @0x939463348632375e {
  active @0 :Bool;
  steeringAngleDeg @1 :Float32;
  steeringRateDeg @2 :Float32;
  steeringAccelDeg @3 :Float32;
  rateSetPoint @4 :Float32;
  accelSetPoint @5 :Float32;
  accelError @6 :Float32;
  delayedOutput @7 :Float32;
  delta @8 :Float32;
  output @9 :Float32;
  saturated @10 :Bool;
  steeringAngleDesiredDeg @11 :Float32;
  steeringRateDesiredDeg @12 :Float32;
}

struct LateralLQRState @0x9024e2d790c82ade {
  active @0 :Bool;
  steeringAngleDeg @1 :Float32;
  i @2 :Float32;
  output @3 :Float32;
  lqrOutput @4 :Float32;
  saturated @5 :Bool;
  steeringAngleDesiredDeg @6 :Float32;
}

struct LiveEventData @0x94b7baa90c5c321e {
  name @0 :Text;
  value @1 :Int32;
}

struct ModelData @0xb8aad62cffef28a9 {
  frameId @0 :UInt32;
  path @1 :PathData;
  leftLane @2 :PathData;
  rightLane @3 :PathData;
  lead @4 :LeadData;
  settings @5 :ModelSettings;
  freePath @6 :List(Float32);
  leadFuture @7 :LeadData;
  speed @8 :List(Float32);
  timestampEof @9 :UInt64;
  meta @10 :MetaData;
  longitudinal @11 :LongitudinalData;
  frameAge @12 :UInt32;
  frameDropPerc @13 :Float32;
  modelExecutionTime @14 :Float32;
  rawPred @15 :Data;
  gpuExecutionTime @16 :Float32;

  struct PathData {
    points @0 :List(Float32);
    prob @1 :Float32;
    std @2 :Float32;
    stds @3 :List(Float32);
    poly @4 :List(Float32);
    validLen @5 :Float32;
  }

  struct LeadData {
    dist @0 :Float32;
    prob @1 :Float32;
    std @2 :Float32;
    relVel @3 :Float32;
    relVelStd @4 :Float32;
    relY @5 :Float32;
    relYStd @6 :Float32;
    relA @7 :Float32;
    relAStd @8 :Float32;
  }

  struct ModelSettings {
    bigBoxX @0 :UInt16;
    bigBoxY @1 :UInt16;
    bigBoxWidth @2 :UInt16;
    bigBoxHeight @3 :UInt16;
    boxProjection @4 :List(Float32);
    yuvCorrection @5 :List(Float32);
    inputTransform @6 :List(Float32);
  }

  struct MetaData {
    engagedProb @0 :Float32;
    desirePrediction @1 :List(Float32);
    brakeDisengageProb @2 :Float32;
    gasDisengageProb @3 :Float32;
    steerOverrideProb @4 :Float32;
    desireState @5 :List(Float32);
  }

  struct LongitudinalData {
    speeds @0 :List(Float32);
    accelerations @1 :List(Float32);
    distances @2 :List(Float32);
  }
}

struct CalibrationFeatures @0x8fdfadb254ea867a {
  frameId @0 :UInt32;
  p0 @1 :List(Float32);
  p1 @2 :List(Float32);
  status @3 :List(Int8);
}

struct LiveUI @0xc08240f996aefced {
  rearViewCam @0 :Bool;
  alertText1 @1 :Text;
  alertText2 @2 :Text;
  awarenessStatus @3 :Float32;
}

# Older name: LiveTracks.
struct LiveTracksDEPRECATED @0xb16f60103159415a {
  trackId @0 :Int32;
  dRel @1 :Float32;
  yRel @2 :Float32;
  vRel @3 :Float32;
  aRel @4 :Float32;
  timeStamp @5 :Float32;
  status @6 :Float32;
  currentTime @7 :Float32;
  stationary @8 :Bool;
  oncoming @9 :Bool;
}

struct GpsTrajectory @0x8cfeb072f5301000 {
  x @0 :List(Float32);
  y @1 :List(Float32);
}

struct LiveLocationData @0xb99b2bc7a57e8128 {
  status @0 :UInt8;
  lat @1 :Float64;
  lon @2 :Float64;
  alt @3 :Float32;
  speed @4 :Float32;
  vNED @5 :List(Float32);
  roll @6 :Float32;
  pitch @7 :Float32;
  heading @8 :Float32;
  wanderAngle @9 :Float32;
  trackAngle @10 :Float32;
  gyro @11 :List(Float32);
  accel @12 :List(Float32);
  accuracy @13 :Accuracy;
  source @14 :SensorSource;
  fixMonoTime @15 :UInt64;
  gpsWeek @16 :Int32;
  timeOfWeek @17 :Float64;
  positionECEF @18 :List(Float64);
  poseQuatECEF @19 :List(Float32);
  pitchCalibration @20 :Float32;
  yawCalibration @21 :Float32;
  imuFrame @22 :List(Float32);

  enum SensorSource {
    applanix @0;
    kalman @1;
    orbslam @2;
    timing @3;
    dummy @4;
  }

  struct Accuracy {
    pNEDError @0 :List(Float32);
    vNEDError @1 :List(Float32);
    rollError @2 :Float32;
    pitchError @3 :Float32;
    headingError @4 :Float32;
    ellipsoidSemiMajorError @5 :Float32;
    ellipsoidSemiMinorError @6 :Float32;
    ellipsoidOrientationError @7 :Float32;
  }
}

struct EthernetPacket @0xa99a9d5b33cf5859 {
  pkt @0 :Data;
  ts @1 :Float32;
}

struct NavUpdate @0xdb98be6565516acb {
  isNavigating @0 :Bool;
  curSegment @1 :Int32;
  segments @2 :List(Segment);

  struct Segment {
    from @0 :LatLng;
    to @1 :LatLng;
    updateTime @2 :Int32;
    distance @3 :Int32;
    crossTime @4 :Int32;
    exitNo @5 :Int32;
    instruction @6 :Instruction;
    parts @7 :List(LatLng);

    enum Instruction {
      turnLeft @0;
      turnRight @1;
      keepLeft @2;
      keepRight @3;
      straight @4;
      roundaboutExitNumber @5;
      roundaboutExit @6;
      roundaboutTurnLeft @7;
      unkn8 @8;
      roundaboutStraight @9;
      unkn10 @10;
      roundaboutTurnRight @11;
      unkn12 @12;
      roundaboutUturn @13;
      unkn14 @14;
      arrive @15;
      exitLeft @16;
      exitRight @17;
      unkn18 @18;
      uturn @19;
    }
  }

  struct LatLng {
    lat @0 :Float64;
    lng @1 :Float64;
  }
}

struct CellInfo @0xcff7566681c277ce {
  timestamp @0 :UInt64;
  repr @1 :Text;
}

struct WifiScan @0xd4df5a192382ba0b {
  bssid @0 :Text;
  ssid @1 :Text;
  capabilities @2 :Text;
  frequency @3 :Int32;
  level @4 :Int32;
  timestamp @5 :Int64;
  centerFreq0 @6 :Int32;
  centerFreq1 @7 :Int32;
  channelWidth @8 :ChannelWidth;
  operatorFriendlyName @9 :Text;
  venueName @10 :Text;
  is80211mcResponder @11 :Bool;
  passpoint @12 :Bool;
  distanceCm @13 :Int32;
  distanceSdCm @14 :Int32;

  enum ChannelWidth {
    w20Mhz @0;
    w40Mhz @1;
    w80Mhz @2;
    w160Mhz @3;
    w80Plus80Mhz @4;
  }
}

struct AndroidGnss @0xdfdf30d03fc485bd {
  union {
    measurements @0 :Measurements;
    navigationMessage @1 :NavigationMessage;
  }

  struct Measurements {
    clock @0 :Clock;
    measurements @1 :List(Measurement);

    struct Clock {
      timeNanos @0 :Int64;
      hardwareClockDiscontinuityCount @1 :Int32;
      hasTimeUncertaintyNanos @2 :Bool;
      timeUncertaintyNanos @3 :Float64;
      hasLeapSecond @4 :Bool;
      leapSecond @5 :Int32;
      hasFullBiasNanos @6 :Bool;
      fullBiasNanos @7 :Int64;
      hasBiasNanos @8 :Bool;
      biasNanos @9 :Float64;
      hasBiasUncertaintyNanos @10 :Bool;
      biasUncertaintyNanos @11 :Float64;
      hasDriftNanosPerSecond @12 :Bool;
      driftNanosPerSecond @13 :Float64;
      hasDriftUncertaintyNanosPerSecond @14 :Bool;
      driftUncertaintyNanosPerSecond @15 :Float64;
    }

    struct Measurement {
      svId @0 :Int32;
      constellation @1 :Constellation;
      timeOffsetNanos @2 :Float64;
      state @3 :Int32;
      receivedSvTimeNanos @4 :Int64;
      receivedSvTimeUncertaintyNanos @5 :Int64;
      cn0DbHz @6 :Float64;
      pseudorangeRateMetersPerSecond @7 :Float64;
      pseudorangeRateUncertaintyMetersPerSecond @8 :Float64;
      accumulatedDeltaRangeState @9 :Int32;
      accumulatedDeltaRangeMeters @10 :Float64;
      accumulatedDeltaRangeUncertaintyMeters @11 :Float64;
      hasCarrierFrequencyHz @12 :Bool;
      carrierFrequencyHz @13 :Float32;
      hasCarrierCycles @14 :Bool;
      carrierCycles @15 :Int64;
      hasCarrierPhase @16 :Bool;
      carrierPhase @17 :Float64;
      hasCarrierPhaseUncertainty @18 :Bool;
      carrierPhaseUncertainty @19 :Float64;
      hasSnrInDb @20 :Bool;
      snrInDb @21 :Float64;
      multipathIndicator @22 :MultipathIndicator;

      enum Constellation {
        unknown @0;
        gps @1;
        sbas @2;
        glonass @3;
        qzss @4;
        beidou @5;
        galileo @6;
      }

      enum MultipathIndicator {
        unknown @0;
        detected @1;
        notDetected @2;
      }
    }
  }

  struct NavigationMessage {
    type @0 :Int32;
    svId @1 :Int32;
    messageId @2 :Int32;
    submessageId @3 :Int32;
    data @4 :Data;
    status @5 :Status;

    enum Status {
      unknown @0;
      parityPassed @1;
      parityRebuilt @2;
    }
  }
}

struct LidarPts @0xe3d6685d4e9d8f7a {
  r @0 :List(UInt16);
  theta @1 :List(UInt16);
  reflect @2 :List(UInt8);
  idx @3 :UInt64;
  pkt @4 :Data;
}

struct LiveMpcData @0x92a5e332a85f32a0 {
  x @0 :List(Float32);
  y @1 :List(Float32);
  psi @2 :List(Float32);
  curvature @3 :List(Float32);
  qpIterations @4 :UInt32;
  calculationTime @5 :UInt64;
  cost @6 :Float64;
}

struct LiveLongitudinalMpcData @0xe7e17c434f865ae2 {
  xEgo @0 :List(Float32);
  vEgo @1 :List(Float32);
  aEgo @2 :List(Float32);
  xLead @3 :List(Float32);
  vLead @4 :List(Float32);
  aLead @5 :List(Float32);
  aLeadTau @6 :Float32;
  qpIterations @7 :UInt32;
  mpcId @8 :UInt32;
  calculationTime @9 :UInt64;
  cost @10 :Float64;
}

struct NavStatus @0xbd8822120928120c {
  isNavigating @0 :Bool;
  currentAddress @1 :Address;

  struct Address {
    title @0 :Text;
    lat @1 :Float64;
    lng @2 :Float64;
    house @3 :Text;
    address @4 :Text;
    street @5 :Text;
    city @6 :Text;
    state @7 :Text;
    country @8 :Text;
  }
}

struct GPSPlannerPoints @0xab54c59699f8f9f3 {
  curPosDEPRECATED @0 :ECEFPointDEPRECATED;
  pointsDEPRECATED @1 :List(ECEFPointDEPRECATED);
  valid @2 :Bool;
  trackName @3 :Text;
  speedLimit @4 :Float32;
  accelTarget @5 :Float32;
  curPos @6 :ECEFPoint;
  points @7 :List(ECEFPoint);
}

struct ECEFPointDEPRECATED @0xe10e21168db0c7f7 {
  x @0 :Float32;
  y @1 :Float32;
  z @2 :Float32;
}

struct ECEFPoint @0xc25bbbd524983447 {
  x @0 :Float64;
  y @1 :Float64;
  z @2 :Float64;
}

struct GPSPlannerPlan @0xf5ad1d90cdc1dd6b {
  valid @0 :Bool;
  poly @1 :List(Float32);
  trackName @2 :Text;
  speed @3 :Float32;
  acceleration @4 :Float32;
  pointsDEPRECATED @5 :List(ECEFPointDEPRECATED);
  points @6 :List(ECEFPoint);
  xLookahead @7 :Float32;
}

struct TrafficEvent @0xacfa74a094e62626 {
  type @0 :Type;
  distance @1 :Float32;
  action @2 :Action;
  resuming @3 :Bool;

  enum Type {
    stopSign @0;
    lightRed @1;
    lightYellow @2;
    lightGreen @3;
    stopLight @4;
  }

  enum Action {
    none @0;
    yield @1;
    stop @2;
    resumeReady @3;
  }
}

struct OrbslamCorrection @0x8afd33dc9b35e1aa {
  correctionMonoTime @0 :UInt64;
  prePositionECEF @1 :List(Float64);
  postPositionECEF @2 :List(Float64);
  prePoseQuatECEF @3 :List(Float32);
  postPoseQuatECEF @4 :List(Float32);
  numInliers @5 :UInt32;
}

struct OrbObservation @0x9b326d4e436afec7 {
  observationMonoTime @0 :UInt64;
  normalizedCoordinates @1 :List(Float32);
  locationECEF @2 :List(Float64);
  matchDistance @3 :UInt32;
}

struct UiNavigationEvent @0x90c8426c3eaddd3b {
  type @0 :Type;
  status @1 :Status;
  distanceTo @2 :Float32;
  endRoadPointDEPRECATED @3 :ECEFPointDEPRECATED;
  endRoadPoint @4 :ECEFPoint;

  enum Type {
    none @0;
    laneChangeLeft @1;
    laneChangeRight @2;
    mergeLeft @3;
    mergeRight @4;
    turnLeft @5;
    turnRight @6;
  }

  enum Status {
    none @0;
    passive @1;
    approaching @2;
    active @3;
  }
}

struct OrbOdometry @0xd7700859ed1f5b76 {
  startMonoTime @0 :UInt64;
  endMonoTime @1 :UInt64;
  f @2 :List(Float64);
  err @3 :Float64;
  inliers @4 :Int32;
  matches @5 :List(Int16);
}

struct OrbFeatures @0xcd60164a8a0159ef {
  timestampEof @0 :UInt64;
  xs @1 :List(Float32);
  ys @2 :List(Float32);
  descriptors @3 :Data;
  octaves @4 :List(Int8);
  timestampLastEof @5 :UInt64;
  matches @6 :List(Int16);
}

struct OrbKeyFrame @0xc8233c0345e27e24 {
  id @0 :UInt64;
  pos @1 :ECEFPoint;
  dpos @2 :List(ECEFPoint);
  descriptors @3 :Data;
}

struct UiLayoutState @0x88dcce08ad29dda0 {
  activeApp @0 :App;
  sidebarCollapsed @1 :Bool;
  mapEnabled @2 :Bool;
  mockEngaged @3 :Bool;

  enum App {
    home @0;
    music @1;
    nav @2;
    settings @3;
    none @4;
  }
}

struct OrbFeaturesSummary @0xd500d30c5803fa4f {
  timestampEof @0 :UInt64;
  timestampLastEof @1 :UInt64;
  featureCount @2 :UInt16;
  matchCount @3 :UInt16;
  computeNs @4 :UInt64;
}

struct DriverStateDEPRECATED @0xb83c6cc593ed0a00 {
  frameId @0 :UInt32;
  descriptorDEPRECATED @1 :List(Float32);
  stdDEPRECATED @2 :Float32;
  faceOrientation @3 :List(Float32);
  facePosition @4 :List(Float32);
  faceProb @5 :Float32;
  leftEyeProb @6 :Float32;
  rightEyeProb @7 :Float32;
  leftBlinkProb @8 :Float32;
  rightBlinkProb @9 :Float32;
  irPwrDEPRECATED @10 :Float32;
  faceOrientationStd @11 :List(Float32);
  facePositionStd @12 :List(Float32);
  sunglassesProb @13 :Float32;
  modelExecutionTime @14 :Float32;
  rawPredictions @15 :Data;
  dspExecutionTime @16 :Float32;
  poorVision @17 :Float32;
  partialFace @18 :Float32;
  distractedPose @19 :Float32;
  distractedEyes @20 :Float32;
  eyesOnRoad @21 :Float32;
  phoneUse @22 :Float32;
  occludedProb @23 :Float32;
  readyProb @24 :List(Float32);
  notReadyProb @25 :List(Float32);
}

struct KalmanOdometry @0x92e21bb7ea38793a {
  trans @0 :List(Float32);
  rot @1 :List(Float32);
  transStd @2 :List(Float32);
  rotStd @3 :List(Float32);
}

struct LateralPlannerSolution @0x84caeca5a6b4acfe {
  x @0 :List(Float32);
  y @1 :List(Float32);
  yaw @2 :List(Float32);
  yawRate @3 :List(Float32);
  xStd @4 :List(Float32);
  yStd @5 :List(Float32);
  yawStd @6 :List(Float32);
  yawRateStd @7 :List(Float32);
}

struct NavModelData @0xac3de5c437be057a {
  frameId @0 :UInt32;
  modelExecutionTime @1 :Float32;
  dspExecutionTime @2 :Float32;
  features @3 :List(Float32);
  position @4 :XYData;
  desirePrediction @5 :List(Float32);
  locationMonoTime @6 :UInt64;

  struct XYData {
    x @0 :List(Float32);
    y @1 :List(Float32);
    xStd @2 :List(Float32);
    yStd @3 :List(Float32);
  }
}

# Older name: AudioFeedback.
struct AudioFeedbackDEPRECATED @0xed47e3c075be372a {
  audio @0 :AudioData;
  blockNum @1 :UInt16;

  struct AudioData {
    data @0 :Data;
    sampleRate @1 :UInt32;
  }
}

enum FrameTypeDEPRECATED @0xa37f0d8558e193fd {
  unknown @0;
  neo @1;
  chffrAndroid @2;
  front @3;
}

enum UsbPowerModeDEPRECATED @0xa8883583b32c9877 {
  none @0;
  client @1;
  cdp @2;
  dcp @3;
}
