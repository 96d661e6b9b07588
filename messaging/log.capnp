# The log schema: everything that travels on the bus and everything that is kept in a log.
#
# Every message is one Event. Its union says what is inside, and the name of the union member is the
# name of the service (its endpoint on the bus). A log file is a row of Events, one after the other.
#
# How to change this file without making old logs unreadable:
# - A member is known on the wire by its ordinal (@3), never by its name or its place in this file.
#   Names and order are for people; an ordinal, once used, keeps its type for ever.
# - A new member takes the next free ordinal of its struct. Members of a group or of a union count
#   with the struct around them.
# - A member nobody sends any more moves into the group "deprecated" of its struct, or takes the
#   ending DEPRECATED, and keeps its ordinal.
# - A type is known by its 64-bit id. Types at the top of a file state it; types inside another one
#   get it from their owner's id and their own name, and state it only where they were renamed.
#
# Unless said otherwise: times are nanoseconds of the device's monotonic clock, lengths metres,
# speeds m/s, accelerations m/s^2, angles radians, curvatures 1/m (positive to the right as seen in
# the device frame), probabilities 0 to 1.
#
# Frames of reference
#   device      origin at the camera; x forward, y right, z down
#   calibrated  device frame turned so that x is the direction the car drives, and levelled
#   view        x right, y down, z forward
#   road        on the road below the camera; x forward, y left, z up
#   NED         north, east, down

@0xf3b1f17e25a4285b;

using Car = import "car.capnp";
using Custom = import "custom.capnp";
using Deprecated = import "deprecated.capnp";


# Envelope ---------------------------------------------------------------------------------------

# One message. The union member names the service.
struct Event @0xd314cfd957229c11 {
  logMonoTime @0 :UInt64;  # ns, monotonic clock, when the message was made
  valid @67 :Bool = true;  # the sender trusts what it says

  union {
    # Driving model
    modelV2 @75 :ModelDataV2;
    drivingModelData @128 :DrivingModelData;
    cameraOdometry @63 :CameraOdometry;

    # Cameras
    narrowRoadCameraState @2 :FrameData;  # was roadCameraState
    wideRoadCameraState @74 :FrameData;
    cabinCameraState @70 :FrameData;  # was driverCameraState
    thumbnail @66 :Thumbnail;

    # Video: where a frame is in the files, and the compressed frames themselves
    narrowRoadEncodeIdx @15 :EncodeIndex;  # was roadEncodeIdx
    wideRoadEncodeIdx @77 :EncodeIndex;
    cabinEncodeIdx @76 :EncodeIndex;  # was driverEncodeIdx
    qNarrowRoadEncodeIdx @90 :EncodeIndex;  # was qRoadEncodeIdx
    livestreamNarrowRoadEncodeIdx @117 :EncodeIndex;  # was livestreamRoadEncodeIdx
    livestreamWideRoadEncodeIdx @118 :EncodeIndex;
    livestreamCabinEncodeIdx @119 :EncodeIndex;  # was livestreamDriverEncodeIdx
    narrowRoadEncodeData @86 :EncodeData;  # was roadEncodeData
    wideRoadEncodeData @88 :EncodeData;
    cabinEncodeData @87 :EncodeData;  # was driverEncodeData
    qNarrowRoadEncodeData @89 :EncodeData;  # was qRoadEncodeData
    livestreamNarrowRoadEncodeData @120 :EncodeData;  # was livestreamRoadEncodeData
    livestreamWideRoadEncodeData @121 :EncodeData;
    livestreamCabinEncodeData @122 :EncodeData;  # was livestreamDriverEncodeData

    # Calibration, motion, learned parameters
    extrinsicsCalibration @19 :ExtrinsicsCalibration;  # was liveCalibration
    deviceMotion @129 :DeviceMotion;  # was livePose
    vehicleParameters @61 :VehicleParameters;  # was liveParameters
    lateralTorqueParameters @94 :LateralTorqueParameters;  # was liveTorqueParameters
    lateralDelay @146 :LateralDelay;  # was liveDelay

    # Car
    carState @22 :Car.CarState;
    carControl @23 :Car.CarControl;
    carOutput @127 :Car.CarOutput;
    carParams @69 :Car.CarParams;
    can @5 :List(CanData);
    sendcan @17 :List(CanData);
    pandaStates @81 :List(PandaState);
    peripheralState @80 :PeripheralState;

    # Planning and control
    selfdriveState @130 :SelfdriveState;
    controlsState @7 :ControlsState;
    longitudinalPlan @24 :LongitudinalPlan;
    lateralManeuverPlan @150 :LateralManeuverPlan;
    radarState @13 :RadarState;
    radarTracks @131 :Car.RadarData;  # was liveTracks
    driverAssistance @132 :DriverAssistance;
    onroadEvents @134 :List(OnroadEvent);

    # Driver monitoring
    driverStateV2 @92 :DriverStateV2;
    driverMonitoringState @151 :DriverMonitoringState;

    # Log keeping
    initData @1 :InitData;
    sentinel @73 :Sentinel;
    boot @60 :Boot;
    clocks @35 :Clocks;
    logMessage @18 :Text;
    errorLogMessage @85 :Text;
    operatingSystemLog @20 :OperatingSystemLogEntry;  # was androidLog

    # Device
    deviceState @6 :DeviceState;
    chestnutState @152 :ChestnutState;
    managerState @78 :ManagerState;
    procLog @33 :ProcLog;

    # Sensors and positioning
    accelerometer @98 :SensorEventData;
    gyroscope @99 :SensorEventData;
    magnetometer @95 :SensorEventData;
    lightSensor @96 :SensorEventData;
    temperatureSensor @97 :SensorEventData;
    gpsLocation @21 :GpsLocationData;
    gpsLocationExternal @48 :GpsLocationData;
    qcomGnss @31 :QcomGnss;
    ubloxGnss @34 :UbloxGnss;
    ubloxRaw @39 :Data;

    # Sound, screen, people
    soundPressure @103 :SoundPressure;  # was microphone
    rawAudioData @147 :AudioData;
    touch @135 :List(Touch);
    userBookmark @93 :UserBookmark;  # was userFlag
    bookmarkButton @148 :UserBookmark;
    testJoystick @52 :Joystick;
    uiDebug @102 :UIDebug;
    alertDebug @133 :DebugAlert;

    # Room for others, empty here
    customReserved0 @107 :Custom.CustomReserved0;
    customReserved1 @108 :Custom.CustomReserved1;
    customReserved2 @109 :Custom.CustomReserved2;
    customReserved3 @110 :Custom.CustomReserved3;
    customReserved4 @111 :Custom.CustomReserved4;
    customReserved5 @112 :Custom.CustomReserved5;
    customReserved6 @113 :Custom.CustomReserved6;
    customReserved7 @114 :Custom.CustomReserved7;
    customReserved8 @115 :Custom.CustomReserved8;
    customReserved9 @116 :Custom.CustomReserved9;
    customReserved10 @136 :Custom.CustomReserved10;
    customReserved11 @137 :Custom.CustomReserved11;
    customReserved12 @138 :Custom.CustomReserved12;
    customReserved13 @139 :Custom.CustomReserved13;
    customReserved14 @140 :Custom.CustomReserved14;
    customReserved15 @141 :Custom.CustomReserved15;
    customReserved16 @142 :Custom.CustomReserved16;
    customReserved17 @143 :Custom.CustomReserved17;
    customReserved18 @144 :Custom.CustomReserved18;
    customReserved19 @145 :Custom.CustomReserved19;
    customReservedRawData0 @124 :Data;
    customReservedRawData1 @125 :Data;
    customReservedRawData2 @126 :Data;

    # No longer sent.
    gpsNMEADEPRECATED @3 :GPSNMEAData;  # was gpsNMEA
    sensorEventDEPRECATED @4 :SensorEventData;
    liveEventDEPRECATED @8 :List(Deprecated.LiveEventData);
    model @9 :Deprecated.ModelData;
    featuresDEPRECATED @10 :Deprecated.CalibrationFeatures;
    sensorEventsDEPRECATED @11 :List(SensorEventData);
    pandaStateDEPRECATED @12 :PandaState;
    liveUIDEPRECATED @14 :Deprecated.LiveUI;
    liveTracksDEPRECATED @16 :List(Deprecated.LiveTracksDEPRECATED);  # was liveTracks
    liveLocationDEPRECATED @25 :Deprecated.LiveLocationData;
    ethernetDataDEPRECATED @26 :List(Deprecated.EthernetPacket);
    navUpdateDEPRECATED @27 :Deprecated.NavUpdate;
    cellInfoDEPRECATED @28 :List(Deprecated.CellInfo);
    wifiScanDEPRECATED @29 :List(Deprecated.WifiScan);
    androidGnssDEPRECATED @30 :Deprecated.AndroidGnss;
    lidarPtsDEPRECATED @32 :Deprecated.LidarPts;
    liveMpcDEPRECATED @36 :Deprecated.LiveMpcData;
    liveLongitudinalMpcDEPRECATED @37 :Deprecated.LiveLongitudinalMpcData;
    navStatusDEPRECATED @38 :Deprecated.NavStatus;
    gpsPlannerPointsDEPRECATED @40 :Deprecated.GPSPlannerPoints;
    gpsPlannerPlanDEPRECATED @41 :Deprecated.GPSPlannerPlan;
    applanixRawDEPRECATED @42 :Data;
    trafficEventsDEPRECATED @43 :List(Deprecated.TrafficEvent);
    liveLocationTimingDEPRECATED @44 :Deprecated.LiveLocationData;
    orbslamCorrectionDEPRECATED @45 :Deprecated.OrbslamCorrection;
    liveLocationCorrectedDEPRECATED @46 :Deprecated.LiveLocationData;
    orbObservationDEPRECATED @47 :List(Deprecated.OrbObservation);
    locationDEPRECATED @49 :Deprecated.LiveLocationData;
    uiNavigationEventDEPRECATED @50 :Deprecated.UiNavigationEvent;
    # was liveLocationKalmanLegacyDEPRECATED, liveLocationKalmanDEPRECATED
    liveLocationKalmanDeprecatedDEPRECATED @51 :Deprecated.LiveLocationData;
    orbOdometryDEPRECATED @53 :Deprecated.OrbOdometry;
    orbFeaturesDEPRECATED @54 :Deprecated.OrbFeatures;
    applanixLocationDEPRECATED @55 :Deprecated.LiveLocationData;
    orbKeyFrameDEPRECATED @56 :Deprecated.OrbKeyFrame;
    uiLayoutStateDEPRECATED @57 :Deprecated.UiLayoutState;
    orbFeaturesSummaryDEPRECATED @58 :Deprecated.OrbFeaturesSummary;
    driverStateDEPRECATED @59 :Deprecated.DriverStateDEPRECATED;
    liveMapDataDEPRECATED @62 :LiveMapDataDEPRECATED;
    lateralPlanDEPRECATED @64 :LateralPlan;
    kalmanOdometryDEPRECATED @65 :Deprecated.KalmanOdometry;
    onroadEventsDEPRECATED @68 :List(Car.OnroadEventDEPRECATED);  # was onroadEvents
    # was driverMonitoringState
    driverMonitoringStateDEPRECATED @71 :DriverMonitoringStateDEPRECATED;
    liveLocationKalmanDEPRECATED @72 :LiveLocationKalman;  # was liveLocationKalman
    uploaderStateDEPRECATED @79 :UploaderState;  # was uploaderState
    navInstructionDEPRECATED @82 :NavInstruction;  # was navInstruction
    navRouteDEPRECATED @83 :NavRoute;  # was navRoute
    navThumbnailDEPRECATED @84 :Thumbnail;  # was navThumbnail
    gnssMeasurementsDEPRECATED @91 :GnssMeasurements;  # was gnssMeasurements
    gyroscope2DEPRECATED @100 :SensorEventData;  # was gyroscope2
    accelerometer2DEPRECATED @101 :SensorEventData;  # was accelerometer2
    navModelDEPRECATED @104 :Deprecated.NavModelData;
    mapRenderStateDEPRECATED @105 :MapRenderState;  # was mapRenderState
    uiPlanDEPRECATED @106 :UiPlan;  # was uiPlan
    temperatureSensor2DEPRECATED @123 :SensorEventData;  # was temperatureSensor2
    audioFeedbackDEPRECATED @149 :Deprecated.AudioFeedbackDEPRECATED;  # was audioFeedback
  }
}


# Driving model ----------------------------------------------------------------------------------

# What the driving model sees and wants, once per camera frame. Positions are metres in the
# calibrated frame (y is positive to the right), times are seconds after the frame.
struct ModelDataV2 @0xc4713f6b0d36abe9 {
  frameId @0 :UInt32;  # main (narrow) camera frame
  frameAge @1 :UInt32;  # frames the camera was ahead when the model started
  frameDropPerc @2 :Float32;  # percent of camera frames missed, low-passed over 10 s
  timestampEof @3 :UInt64;  # ns, end of exposure of frame frameId
  position @4 :XYZTData;  # plan, m, calibrated frame, with standard deviations
  orientation @5 :XYZTData;  # rad: roll, pitch, yaw relative to now
  velocity @6 :XYZTData;  # m/s, calibrated frame
  orientationRate @7 :XYZTData;  # rad/s
  laneLines @8 :List(XYZTData);  # m; outer left, left, right, outer right; t is empty
  laneLineProbs @9 :List(Float32);  # probability that the line exists
  roadEdges @10 :List(XYZTData);  # m; left, right
  meta @12 :MetaData;
  laneLineStds @13 :List(Float32);  # m, standard deviation of y at the first point
  roadEdgeStds @14 :List(Float32);  # m, as laneLineStds
  modelExecutionTime @15 :Float32;  # s, from warp to parsed outputs
  rawPredictions @16 :Data;  # float32 output vector, only on request
  leadsV3 @18 :List(LeadDataV3);  # the leads to expect 0, 2 and 4 s from now
  acceleration @19 :XYZTData;  # m/s^2, calibrated frame
  frameIdExtra @20 :UInt32;  # wide camera frame used with it
  confidence @23 :ConfidenceClass;  # how likely the driver is to take over soon
  action @26 :Action;
  big @27 :Bool;  # made by the large model on an external processor

  # What the model thinks about the driver and the manoeuvre.
  struct MetaData {
    engagedProb @0 :Float32;  # that the system is driving
    desirePrediction @1 :List(Float32);  # the same 2, 4, 6, 8 s ahead, 4 x 8 values, row by row
    desireState @5 :List(Float32);  # probability of each Desire being carried out, 8 values
    disengagePredictions @6 :DisengagePredictions;
    hardBrakePredicted @7 :Bool;  # forward collision warning
    laneChangeState @8 :LaneChangeState;
    laneChangeDirection @9 :LaneChangeDirection;

    deprecated :group {
      brakeDisengageProb @2 :Float32;
      gasDisengageProb @3 :Float32;
      steerOverrideProb @4 :Float32;
    }
  }

  # Probability of each driver action before each of the times t.
  struct DisengagePredictions {
    t @0 :List(Float32);  # s after the frame
    brakeDisengageProbs @1 :List(Float32);
    gasDisengageProbs @2 :List(Float32);
    steerOverrideProbs @3 :List(Float32);
    brake3MetersPerSecondSquaredProbs @4 :List(Float32);  # driver brakes harder than 3 m/s^2
    brake4MetersPerSecondSquaredProbs @5 :List(Float32);
    brake5MetersPerSecondSquaredProbs @6 :List(Float32);
    gasPressProbs @7 :List(Float32);
    brakePressProbs @8 :List(Float32);
  }

  # Motion of the device during one frame, device frame.
  struct Pose {
    trans @0 :List(Float32);  # m/s: x, y, z
    rot @1 :List(Float32);  # rad/s: roll, pitch, yaw
    transStd @2 :List(Float32);
    rotStd @3 :List(Float32);
  }

  # A car ahead: where it will be at the times t.
  struct LeadDataV3 {
    prob @0 :Float32;  # probability that this lead exists
    probTime @1 :Float32;  # s, for which time prob holds
    t @2 :List(Float32);  # s
    x @3 :List(Float32);  # m ahead of the camera
    xStd @4 :List(Float32);
    y @5 :List(Float32);  # m, positive to the right
    yStd @6 :List(Float32);
    v @7 :List(Float32);  # m/s over ground
    vStd @8 :List(Float32);
    a @9 :List(Float32);  # m/s^2
    aStd @10 :List(Float32);
  }

  # What the plan asks of the car now.
  struct Action {
    desiredCurvature @0 :Float32;  # 1/m
    desiredAcceleration @1 :Float32;  # m/s^2
    shouldStop @2 :Bool;  # come to, or stay at, a stand
  }

  # An unset field reads as red, the careful answer.
  enum ConfidenceClass {
    red @0;
    yellow @1;
    green @2;
  }

  leadsDEPRECATED @11 :List(LeadDataV2DEPRECATED);
  lateralPlannerSolutionDEPRECATED @25 :Deprecated.LateralPlannerSolution;

  deprecated :group {
    gpuExecutionTime @17 :Float32;
    temporalPose @21 :Pose;
    navEnabled @22 :Bool;
    locationMonoTime @24 :UInt64;
  }

  # Older name: LeadDataV2.
  struct LeadDataV2DEPRECATED {
    prob @0 :Float32;
    t @1 :Float32;
    xyva @2 :List(Float32);
    xyvaStd @3 :List(Float32);
  }
}

# A curve in space with its standard deviations: element i of every list belongs together. An empty
# list means unknown.
struct XYZTData @0xc3cbae1fd505ae80 {
  x @0 :List(Float32);  # m (or rad, m/s, ... as the owner says)
  y @1 :List(Float32);
  z @2 :List(Float32);
  t @3 :List(Float32);  # s after the frame
  xStd @4 :List(Float32);
  yStd @5 :List(Float32);
  zStd @6 :List(Float32);
}

# The small excerpt of ModelDataV2 that fits into the decimated log.
struct DrivingModelData @0xe8f9ba819993a776 {
  frameId @0 :UInt32;  # main (narrow) camera frame
  frameIdExtra @1 :UInt32;  # wide camera frame
  action @2 :ModelDataV2.Action;
  laneLineMeta @3 :LaneLineMeta;
  meta @4 :MetaData;
  path @5 :PolyPath;
  frameDropPerc @6 :Float32;  # percent
  modelExecutionTime @7 :Float32;  # s

  # The two lines of the own lane where they pass the camera (x = 0).
  struct LaneLineMeta {
    leftY @0 :Float32;  # m, positive to the right
    rightY @1 :Float32;  # m, positive to the right
    leftProb @2 :Float32;
    rightProb @3 :Float32;
  }

  struct MetaData {
    laneChangeState @0 :LaneChangeState;
    laneChangeDirection @1 :LaneChangeDirection;
  }

  # Path as polynomials in time (seconds), lowest power first.
  struct PolyPath {
    xCoefficients @0 :List(Float32);  # m/s^i, calibrated frame, 5 values
    yCoefficients @1 :List(Float32);
    zCoefficients @2 :List(Float32);
  }
}

# Motion of the camera during one frame as the driving model sees it, for localisation and
# calibration.
struct CameraOdometry @0xfa9a296b9fd41a96 {
  trans @0 :List(Float32);  # m/s: x, y, z in the device frame
  rot @1 :List(Float32);  # rad/s about x, y, z of the device frame
  transStd @2 :List(Float32);  # m/s
  rotStd @3 :List(Float32);  # rad/s
  frameId @4 :UInt32;  # main camera frame
  timestampEof @5 :UInt64;  # ns, end of exposure
  wideFromDeviceEuler @6 :List(Float32);  # rad: roll, pitch, yaw of the wide camera in the device
  wideFromDeviceEulerStd @7 :List(Float32);  # rad
  roadTransformTrans @8 :List(Float32);  # m, camera above the road; z is the height
  roadTransformTransStd @9 :List(Float32);  # m
}

# What the driver wants the model to do.
enum Desire @0xae674a34ba421466 {
  none @0;
  turnLeft @1;
  turnRight @2;
  laneChangeLeft @3;
  laneChangeRight @4;
  keepLeft @5;
  keepRight @6;
}

enum LaneChangeState @0xcd37924bf7b2d3d2 {
  off @0;
  preLaneChange @1;
  laneChangeStarting @2;
  laneChangeFinishing @3;
}

enum LaneChangeDirection @0x9d0bc0c1fe671176 {
  none @0;
  left @1;
  right @2;
}


# Cameras and video ------------------------------------------------------------------------------

# One camera frame as the sensor delivered it.
struct FrameData @0xea0245f695ae0a33 {
  frameId @0 :UInt32;  # counts frames since the cameras started
  encodeId @1 :UInt32;  # counts frames given to the encoder
  timestampEof @2 :UInt64;  # ns, end of frame
  integLines @4 :Int32;  # exposure time in lines
  image @6 :Data;  # only on request
  timestampSof @8 :UInt64;  # ns, start of frame
  transform @10 :List(Float32);  # 3 x 3 matrix, row by row
  gain @15 :Float32;  # analog gain, factor
  highConversionGain @20 :Bool;  # sensor mode for dark scenes
  measuredGreyFraction @21 :Float32;  # mean brightness, 0 to 1
  targetGreyFraction @22 :Float32;  # what auto exposure aims at
  processingTime @23 :Float32;  # s, on the device
  temperaturesC @24 :List(Float32);  # degrees C, sensor
  frameIdSensor @25 :UInt32;  # counter of the sensor itself
  sensor @26 :ImageSensor;
  exposureValPercent @27 :Float32;  # percent of the longest exposure
  requestId @28 :UInt32;  # counter of the camera driver

  enum ImageSensor {
    unknown @0;
    ar0231 @1;
    ox03c10 @2;
    os04c10 @3;
  }

  deprecated :group {
    frameLength @3 :Int32;
    globalGain @5 :Int32;
    frameType @7 :Deprecated.FrameTypeDEPRECATED;
    androidCaptureResult @9 :Deprecated.AndroidCaptureResult;
    lensPos @11 :Int32;
    lensSag @12 :Float32;
    lensErr @13 :Float32;
    lensTruePos @14 :Float32;
    focusVal @16 :List(Int16);
    focusConf @17 :List(UInt8);
    sharpnessScore @18 :List(UInt16);
    recoverState @19 :Int32;
  }
}

# Where a camera frame went in the recorded video. To find the picture of a frame, look up its
# frameId here and take picture number segmentId of the video file of segment segmentNum.
struct EncodeIndex @0x89d394e3541735fc {
  frameId @0 :UInt32;  # camera frame (FrameData.frameId)
  type @1 :Type;
  encodeId @2 :UInt32;  # counts frames of this encoder
  segmentNum @3 :Int32;  # segment of the route, one minute each
  segmentId @4 :UInt32;  # number of the picture in this segment's file
  segmentIdEncode @5 :UInt32;  # the same, counted by the encoder
  timestampSof @6 :UInt64;  # ns, start of frame
  timestampEof @7 :UInt64;  # ns, end of frame
  flags @8 :UInt32;  # 0x8: key frame
  len @9 :UInt32;  # bytes

  enum Type {
    bigBoxLossless @0;
    fullHEVC @1;
    bigBoxHEVCDEPRECATED @2;
    chffrAndroidH264DEPRECATED @3;
    fullLosslessClipDEPRECATED @4;
    frontDEPRECATED @5;
    qcameraH264 @6;
    livestreamH264 @7;
  }
}

# One compressed frame.
struct EncodeData @0xcf9aeab355dd85f0 {
  idx @0 :EncodeIndex;
  data @1 :Data;  # compressed frame
  header @2 :Data;  # parameter sets, with key frames
  unixTimestampNanos @3 :UInt64;  # ns since 1970
  width @4 :UInt32;  # pixels
  height @5 :UInt32;  # pixels
}

# A small picture of the road.
struct Thumbnail @0xb65fce64120af7d3 {
  frameId @0 :UInt32;  # camera frame
  timestampEof @1 :UInt64;  # ns, end of frame
  thumbnail @2 :Data;  # file in the given encoding
  encoding @3 :Encoding;

  enum Encoding {
    unknown @0;
    jpeg @1;
    keyframe @2;
  }
}


# Calibration, motion, learned parameters --------------------------------------------------------

# How the device is mounted in the car.
# Older name: LiveCalibrationData.
struct ExtrinsicsCalibration @0x96df70754d8390bc {
  calCycle @2 :Int32;  # counts calibrations
  calPerc @3 :Int8;  # percent of the needed data
  extrinsicMatrix @4 :List(Float32);  # 3 x 4, view from road frame, row by row
  rpyCalib @7 :List(Float32);  # rad: roll, pitch, yaw of the device in the car
  rpyCalibSpread @8 :List(Float32);  # rad, largest minus smallest over the blocks
  validBlocks @9 :Int32;  # blocks of data used
  wideFromDeviceEuler @10 :List(Float32);  # rad: roll, pitch, yaw of the wide camera in the device
  calStatus @11 :Status;  # plans are valid only when calibrated
  height @12 :List(Float32);  # m, camera above the road

  enum Status {
    uncalibrated @0;
    calibrated @1;
    invalid @2;
    recalibrating @3;
  }

  deprecated :group {
    warpMatrix @0 :List(Float32);
    calStatus @1 :Int8;
    warpMatrix2 @5 :List(Float32);
    warpMatrixBig @6 :List(Float32);
  }
}

# Motion of the device, from camera, gyroscope and accelerometer together.
# Older name: LivePose.
struct DeviceMotion @0xc24ca2b57206b44d {
  orientationNED @0 :XYZMeasurement;  # rad: roll, pitch, yaw against NED
  velocityDevice @1 :XYZMeasurement;  # m/s, device frame
  accelerationDevice @2 :XYZMeasurement;  # m/s^2, device frame
  angularVelocityDevice @3 :XYZMeasurement;  # rad/s, device frame
  inputsOK @4 :Bool;  # all inputs arrive
  posenetOK @5 :Bool;  # camera odometry agrees
  sensorsOK @6 :Bool;  # sensors agree
  debugFilterState @7 :FilterState;
  timestamp @8 :UInt64;  # ns

  # A vector with the standard deviations of its parts.
  struct XYZMeasurement {
    x @0 :Float32;
    y @1 :Float32;
    z @2 :Float32;
    xStd @3 :Float32;
    yStd @4 :Float32;
    zStd @5 :Float32;
    valid @6 :Bool;
  }

  struct FilterState {
    value @0 :List(Float64);
    std @1 :List(Float64);
    valid @2 :Bool;
    observations @3 :List(Observation);

    struct Observation {
      kind @0 :Int32;
      value @1 :List(Float32);
      error @2 :List(Float32);
    }
  }
}

# Properties of the car learned while driving.
# Older name: LiveParametersData.
struct VehicleParameters @0xd9058dcb967c2753 {
  valid @0 :Bool;
  gyroBias @1 :Float32;  # rad/s
  angleOffsetDeg @2 :Float32;  # degrees, steering wheel, fast estimate
  angleOffsetAverageDeg @3 :Float32;  # degrees, slow estimate
  stiffnessFactor @4 :Float32;  # tyres, relative to CarParams
  steerRatio @5 :Float32;  # steering wheel angle / road wheel angle
  sensorValid @6 :Bool;
  posenetSpeed @8 :Float32;  # m/s
  posenetValid @9 :Bool;
  angleOffsetFastStd @10 :Float32;
  angleOffsetAverageStd @11 :Float32;
  stiffnessFactorStd @12 :Float32;
  steerRatioStd @13 :Float32;
  roll @14 :Float32;  # rad, of the road
  debugFilterState @16 :FilterState;
  angleOffsetValid @17 :Bool = true;
  angleOffsetAverageValid @18 :Bool = true;
  steerRatioValid @19 :Bool = true;
  stiffnessFactorValid @20 :Bool = true;

  struct FilterState {
    value @0 :List(Float64);
    std @1 :List(Float64);
  }

  deprecated :group {
    yawRate @7 :Float32;
    filterState @15 :LiveLocationKalman.Measurement;
  }
}

# Learned relation between steering torque and lateral acceleration.
# Older name: LiveTorqueParametersData.
struct LateralTorqueParameters @0xe61690eb0b091692 {
  valid @0 :Bool;
  latAccelFactorRaw @1 :Float32;  # m/s^2 per unit of torque
  latAccelOffsetRaw @2 :Float32;  # m/s^2
  frictionCoefficientRaw @3 :Float32;
  latAccelFactorFiltered @4 :Float32;
  latAccelOffsetFiltered @5 :Float32;
  frictionCoefficientFiltered @6 :Float32;
  totalBucketPoints @7 :Float32;
  decay @8 :Float32;
  maxResets @9 :Float32;
  points @10 :List(List(Float32));
  version @11 :Int32;
  useParams @12 :Bool;
  calPerc @13 :Int8;  # percent of the needed data
}

# Learned time between a steering command and the car turning.
# Older name: LiveDelayData.
struct LateralDelay @0x98dfdb22c44df8d4 {
  lateralDelay @0 :Float32;  # s, to be used
  validBlocks @1 :Int32;
  status @2 :Status;
  lateralDelayEstimate @3 :Float32;  # s, newest estimate
  points @4 :List(Float32);
  lateralDelayEstimateStd @5 :Float32;  # s
  calPerc @6 :Int8;  # percent of the needed data
  version @7 :Int32;

  enum Status {
    unestimated @0;
    estimated @1;
    invalid @2;
  }
}


# Planning and control ---------------------------------------------------------------------------

# Whether the system drives, and what it tells the driver.
struct SelfdriveState @0xb52430dc48f4a83b {
  state @0 :OpenpilotState;
  enabled @1 :Bool;  # the system is engaged
  active @2 :Bool;  # and acts on the car
  alertText1 @3 :Text;
  alertText2 @4 :Text;
  alertStatus @5 :AlertStatus;
  alertSize @6 :AlertSize;
  alertType @7 :Text;
  engageable @9 :Bool;
  experimentalMode @10 :Bool;
  personality @11 :LongitudinalPersonality;
  alertHudVisual @12 :Car.CarControl.HUDControl.VisualAlert;
  alertSound @13 :AudibleAlert;

  enum OpenpilotState @0xdbe58b96d2d1ac61 {
    disabled @0;
    preEnabled @1;
    enabled @2;
    softDisabling @3;
    overriding @4;
  }

  enum AlertStatus @0xa0d0dcd113193c62 {
    normal @0;
    userPrompt @1;
    critical @2;
  }

  enum AlertSize @0xe98bb99d6e985f64 {
    none @0;
    small @1;
    mid @2;
    full @3;
  }

  enum AudibleAlert {
    none @0;
    engage @1;
    disengage @2;
    refuse @3;
    warningSoft @4;
    warningImmediate @5;
    prompt @6;
    promptRepeat @7;
    promptDistracted @8;
    preAlert @9;
    complete @10;
  }

  deprecated :group {
    alertSound @8 :Car.CarControl.HUDControl.AudibleAlert;
  }
}

# Something that happened, and what follows from it.
struct OnroadEvent @0xc4fa6047f024e718 {
  name @0 :EventName;
  enable @1 :Bool;
  noEntry @2 :Bool;
  warning @3 :Bool;
  userDisable @4 :Bool;
  softDisable @5 :Bool;
  immediateDisable @6 :Bool;
  preEnable @7 :Bool;
  permanent @8 :Bool;
  overrideLongitudinal @9 :Bool;
  overrideLateral @10 :Bool;

  enum EventName @0x91f1992a1f77fb03 {
    canError @0;
    steerUnavailable @1;
    wrongGear @2;
    doorOpen @3;
    seatbeltNotLatched @4;
    espDisabled @5;
    wrongCarMode @6;
    steerTempUnavailable @7;
    reverseGear @8;
    buttonCancel @9;
    buttonEnable @10;
    pedalPressed @11;
    preEnableStandstill @12;
    gasPressedOverride @13;
    steerOverride @14;
    cruiseDisabled @15;
    speedTooLow @16;
    outOfSpace @17;
    overheat @18;
    calibrationIncomplete @19;
    calibrationInvalid @20;
    calibrationRecalibrating @21;
    controlsMismatch @22;
    pcmEnable @23;
    pcmDisable @24;
    radarFault @25;
    brakeHold @26;
    parkBrake @27;
    manualRestart @28;
    joystickDebug @29;
    longitudinalManeuver @30;
    steerTempUnavailableSilent @31;
    resumeRequired @32;
    driverDistracted1 @33;
    driverDistracted2 @34;
    driverDistracted3 @35;
    driverUnresponsive1 @36;
    driverUnresponsive2 @37;
    driverUnresponsive3 @38;
    belowSteerSpeed @39;
    lowBatteryDEPRECATED @40;
    accFaulted @41;
    sensorDataInvalid @42;
    commIssue @43;
    commIssueAvgFreq @44;
    tooDistracted @45;
    posenetInvalid @46;
    soundsUnavailableDEPRECATED @47;
    preLaneChangeLeft @48;
    preLaneChangeRight @49;
    laneChange @50;
    lowMemory @51;
    stockAeb @52;
    ldw @53;
    carUnrecognized @54;
    invalidLkasSetting @55;
    speedTooHigh @56;
    laneChangeBlocked @57;
    relayMalfunction @58;
    stockFcw @59;
    startup @60;
    startupNoCar @61;
    startupNoControl @62;
    startupNoSecOcKey @63;
    startupMaster @64;
    fcw @65;
    steerSaturated @66;
    belowEngageSpeed @67;
    noGps @68;
    wrongCruiseMode @69;
    modeldLagging @70;
    deviceFallingDEPRECATED @71;
    fanMalfunction @72;
    cameraMalfunction @73;
    cameraFrameRate @74;
    processNotRunning @75;
    dashcamMode @76;
    selfdriveInitializing @77;
    usbErrorDEPRECATED @78;
    cruiseMismatch @79;
    canBusMissing @80;
    selfdrivedLagging @81;
    resumeBlocked @82;
    steerTimeLimit @83;
    vehicleSensorsInvalid @84;
    locationdTemporaryError @85;
    locationdPermanentError @86;
    paramsdTemporaryError @87;
    paramsdPermanentError @88;
    actuatorsApiUnavailable @89;
    espActive @90;
    personalityChanged @91;
    aeb @92;
    radarTempUnavailable @93;
    steerDisengage @94;
    userBookmark @95;
    excessiveActuation @96;
    audioFeedbackDEPRECATED @97;
    stockLkas @98;
    lateralManeuver @99;
    bigModelLoading @100;
    bigModelReadyDEPRECATED @101;
    bigModelFailed @102;
    carNotReady @103;
  }
}

# Inner state of the controllers.
struct ControlsState @0x97ff69c53601abf1 {
  upAccelCmd @4 :Float32;
  uiAccelCmd @5 :Float32;
  longitudinalPlanMonoTime @28 :UInt64;  # ns
  longControlState @30 :Car.CarControl.Actuators.LongControlState;
  ufAccelCmd @33 :Float32;
  curvature @37 :Float32;  # 1/m, measured
  lateralPlanMonoTime @50 :UInt64;  # ns
  forceDecel @51 :Bool;  # slow down, the driver does not answer
  desiredCurvature @61 :Float32;  # 1/m, commanded

  lateralControlState :union {
    indiStateDEPRECATED @52 :Deprecated.LateralINDIState;
    pidState @53 :LateralPIDState;
    lqrStateDEPRECATED @55 :Deprecated.LateralLQRState;
    angleState @58 :LateralAngleState;
    debugState @59 :LateralDebugState;
    torqueState @60 :LateralTorqueState;
    curvatureState @65 :LateralCurvatureState;
  }

  struct LateralPIDState {
    active @0 :Bool;
    steeringAngleDeg @1 :Float32;
    steeringRateDeg @2 :Float32;
    angleError @3 :Float32;
    p @4 :Float32;
    i @5 :Float32;
    f @6 :Float32;
    output @7 :Float32;
    saturated @8 :Bool;
    steeringAngleDesiredDeg @9 :Float32;
  }

  struct LateralAngleState {
    active @0 :Bool;
    steeringAngleDeg @1 :Float32;
    output @2 :Float32;
    saturated @3 :Bool;
    steeringAngleDesiredDeg @4 :Float32;
  }

  struct LateralDebugState {
    active @0 :Bool;
    steeringAngleDeg @1 :Float32;
    output @2 :Float32;
    saturated @3 :Bool;
  }

  struct LateralTorqueState {
    active @0 :Bool;
    error @1 :Float32;
    p @2 :Float32;
    i @3 :Float32;
    d @4 :Float32;
    f @5 :Float32;
    output @6 :Float32;
    saturated @7 :Bool;
    errorRate @8 :Float32;
    actualLateralAccel @9 :Float32;
    desiredLateralAccel @10 :Float32;
    desiredLateralJerk @11 :Float32;
    version @12 :Int32;
  }

  struct LateralCurvatureState {
    active @0 :Bool;
    actualCurvature @1 :Float32;
    desiredCurvature @2 :Float32;
    error @3 :Float32;
    p @4 :Float32;
    i @5 :Float32;
    f @6 :Float32;
    output @7 :Float32;
    saturated @8 :Bool;
  }

  deprecated :group {
    vEgo @0 :Float32;
    aEgo @1 :Float32;
    vPid @2 :Float32;
    vTargetLead @3 :Float32;
    yActual @6 :Float32;
    yDes @7 :Float32;
    upSteer @8 :Float32;
    uiSteer @9 :Float32;
    aTargetMin @10 :Float32;
    aTargetMax @11 :Float32;
    jerkFactor @12 :Float32;
    angleSteers @13 :Float32;
    hudLead @14 :Int32;
    cumLagMs @15 :Float32;
    canMonoTime @16 :UInt64;
    radarStateMonoTime @17 :UInt64;
    mdMonoTime @18 :UInt64;
    enabled @19 :Bool;
    steerOverride @20 :Bool;
    canMonoTimes @21 :List(UInt64);
    vCruise @22 :Float32;
    rearViewCam @23 :Bool;
    alertText1 @24 :Text;
    alertText2 @25 :Text;
    awarenessStatus @26 :Float32;
    angleModelBias @27 :Float32;
    steeringAngleDesiredDeg @29 :Float32;
    state @31 :SelfdriveState.OpenpilotState;
    vEgoRaw @32 :Float32;
    ufSteer @34 :Float32;
    aTarget @35 :Float32;
    active @36 :Bool;
    alertStatus @38 :SelfdriveState.AlertStatus;
    alertSize @39 :SelfdriveState.AlertSize;
    gpsPlannerActive @40 :Bool;
    engageable @41 :Bool;
    alertBlinkingRate @42 :Float32;
    driverMonitoringOn @43 :Bool;
    alertType @44 :Text;
    alertSound @45 :Text;
    vCurvature @46 :Float32;
    decelForTurn @47 :Bool;
    startMonoTime @48 :UInt64;
    mapValid @49 :Bool;
    decelForModel @54 :Bool;
    alertSound2 @56 :SelfdriveState.AudibleAlert;
    canErrorCounter @57 :UInt32;
    desiredCurvatureRate @62 :Float32;
    vCruiseCluster @63 :Float32;
    experimentalMode @64 :Bool;
    personality @66 :LongitudinalPersonality;
  }
}

# Speed plan for the next seconds.
struct LongitudinalPlan @0xe00b5b3eba12876c {
  hasLead @7 :Bool;
  fcw @8 :Bool;  # forward collision warning
  modelMonoTime @9 :UInt64;  # ns
  longitudinalPlanSource @15 :LongitudinalPlanSource;
  aTarget @18 :Float32;  # m/s^2, wanted now
  processingDelay @29 :Float32;  # s, since the model message
  accels @32 :List(Float32);  # m/s^2
  speeds @33 :List(Float32);  # m/s
  jerks @34 :List(Float32);  # m/s^3
  solverExecutionTime @35 :Float32;  # s
  shouldStop @37 :Bool;
  allowThrottle @38 :Bool;
  allowBrake @39 :Bool;

  enum LongitudinalPlanSource {
    cruise @0;
    lead0 @1;
    lead1 @2;
    lead2 @3;
    e2e @4;
  }

  deprecated :group {
    lateralValid @0 :Bool;
    dPoly @1 :List(Float32);
    longitudinalValid @2 :Bool;
    vTarget @3 :Float32;
    aTargetMin @4 :Float32;
    aTargetMax @5 :Float32;
    jerkFactor @6 :Float32;
    radarStateMonoTime @10 :UInt64;
    laneWidth @11 :Float32;
    gpsTrajectory @12 :Deprecated.GpsTrajectory;
    events @13 :List(Car.OnroadEventDEPRECATED);
    vTargetFuture @14 :Float32;
    vCruise @16 :Float32;
    aCruise @17 :Float32;
    gpsPlannerActive @19 :Bool;
    vMax @20 :Float32;
    vCurvature @21 :Float32;
    decelForTurn @22 :Bool;
    hasLeftLane @23 :Bool;
    hasRightLane @24 :Bool;
    mapValid @25 :Bool;
    vStart @26 :Float32;
    aStart @27 :Float32;
    radarValid @28 :Bool;
    radarCanError @30 :Bool;
    commIssue @31 :Bool;
    personality @36 :LongitudinalPersonality;
  }
}

enum LongitudinalPersonality @0xd692e23d1a247d99 {
  aggressive @0;
  standard @1;
  relaxed @2;
}

# Steering test: overrides the curvature of the driving model.
struct LateralManeuverPlan @0xed12f1c294702e30 {
  desiredCurvature @0 :Float32;  # 1/m
}

# The cars ahead, from radar and driving model together.
struct RadarState @0x9a185389d6fdd05f {
  leadOne @3 :LeadData;
  leadTwo @4 :LeadData;
  mdMonoTime @6 :UInt64;  # ns, of the model message used
  radarErrors @13 :Car.RadarData.Error;

  # Distances are from the front of the own car; y is positive to the left.
  struct LeadData {
    dRel @0 :Float32;  # m
    yRel @1 :Float32;  # m
    vRel @2 :Float32;  # m/s, relative to the own car
    vLead @4 :Float32;  # m/s over ground
    vLeadK @8 :Float32;  # m/s, filtered
    aLeadK @9 :Float32;  # m/s^2, filtered
    present @11 :Bool;
    aLeadTau @12 :Float32;  # s, how long the acceleration is believed to last
    modelProb @13 :Float32;
    radar @14 :Bool;  # seen by the radar
    radarTrackId @15 :Int32 = -1;  # -1: no radar track

    deprecated :group {
      aRel @3 :Float32;
      aLead @5 :Float32;
      dPath @6 :Float32;
      vLat @7 :Float32;
      fcw @10 :Bool;
    }
  }

  deprecated :group {
    warpMatrix @0 :List(Float32);
    angleOffset @1 :Float32;
    calStatus @2 :Int8;
    cumLagMs @5 :Float32;
    ftMonoTime @7 :UInt64;
    calCycle @8 :Int32;
    calPerc @9 :Int8;
    canMonoTimes @10 :List(UInt64);
    carStateMonoTime @11 :UInt64;
    radarErrors @12 :List(Car.RadarData.ErrorDEPRECATED);
  }
}

# Warnings given while a person drives.
struct DriverAssistance @0x9b669f73a9c1cfbc {
  leftLaneDeparture @0 :Bool;
  rightLaneDeparture @1 :Bool;
}


# Driver monitoring ------------------------------------------------------------------------------

# What the driver monitoring model sees, for the person on either seat.
struct DriverStateV2 @0xfc010c40147563b0 {
  frameId @0 :UInt32;
  modelExecutionTime @1 :Float32;
  rawPredictions @3 :Data;
  wheelOnRightProb @5 :Float32;
  leftDriverData @6 :DriverData;
  rightDriverData @7 :DriverData;
  gpuExecutionTime @8 :Float32;

  struct DriverData {
    faceOrientation @0 :List(Float32);  # rad: pitch, yaw, roll
    faceOrientationStd @1 :List(Float32);
    facePosition @2 :List(Float32);
    facePositionStd @3 :List(Float32);
    faceProb @4 :Float32;
    leftEyeProb @5 :Float32;
    rightEyeProb @6 :Float32;
    leftBlinkProb @7 :Float32;
    rightBlinkProb @8 :Float32;
    sunglassesProb @9 :Float32;
    phoneProb @13 :Float32;
    sleepProb @14 :Float32;

    deprecated :group {
      occludedProb @10 :Float32;
      readyProb @11 :List(Float32);
      notReadyProb @12 :List(Float32);
    }
  }

  deprecated :group {
    dspExecutionTime @2 :Float32;
    poorVisionProb @4 :Float32;
  }
}

# Whether the driver pays attention. A different struct had this name and ordinal 71 until 2026.
struct DriverMonitoringState @0xa0df507d7df1052d {
  lockout @0 :Bool;
  alwaysOn @3 :Bool;
  alwaysOnLockout @4 :Bool;
  alertLevel @5 :AlertLevel;
  activePolicy @6 :MonitoringPolicy;
  isRHD @7 :Bool;
  rhdCalibration @8 :CalibrationState;
  visionPolicyState @9 :VisionPolicyState;
  wheeltouchPolicyState @10 :WheeltouchPolicyState;
  lockoutMinutesRemaining @11 :Int8;
  alert3Count @12 :Int8;
  noResponseCount @13 :Int8;
  noResponseForceDecel @14 :Bool;
  lockoutCount @15 :Int8;

  struct CalibrationState {
    calibratedPercent @0 :Int8;
    offset @1 :Float32;
  }

  struct VisionPolicyState {
    awarenessPercent @0 :Int8;
    awarenessStep @1 :Float32;
    isDistracted @2 :Bool;
    distractedTypes @3 :DistractedTypes;
    faceDetected @4 :Bool;
    pose @5 :Pose;
    wheeltouchFallbackPercent @6 :Int8;
    uncertainOffroadAlertPercent @7 :Int8;

    struct DistractedTypes {
      pose @0 :Bool;
      eye @1 :Bool;
      phone @2 :Bool;
    }

    struct Pose {
      pitch @0 :Float32;
      yaw @1 :Float32;
      pitchCalib @2 :CalibrationState;
      yawCalib @3 :CalibrationState;
      calibrated @4 :Bool;
      uncertainty @5 :Float32;
    }
  }

  struct WheeltouchPolicyState {
    awarenessPercent @0 :Int8;
    awarenessStep @1 :Float32;
    driverInteracting @2 :Bool;
  }

  enum AlertLevel {
    none @0;
    one @1;
    two @2;
    three @3;
  }

  enum MonitoringPolicy {
    wheeltouch @0;
    vision @1;
  }

  deprecated :group {
    alertCountLockoutPercent @1 :Int8;
    alertTimeLockoutPercent @2 :Int8;
  }
}


# Log keeping ------------------------------------------------------------------------------------

# First message of every log: which software on which device.
struct InitData @0xe71008caeb3fb65c {
  kernelArgs @0 :List(Text);
  dongleId @2 :Text;  # identity of the device
  deviceType @3 :DeviceType;
  version @4 :Text;
  pandaInfo @8 :PandaInfo;
  dirty @9 :Bool;  # built from changed sources
  gitCommit @10 :Text;
  gitBranch @11 :Text;
  passive @12 :Bool;  # only looks, never drives
  gitRemote @13 :Text;
  kernelVersion @15 :Text;
  androidProperties @16 :Map(Text, Text);
  params @17 :Map(Text, Data);
  osVersion @18 :Text;
  commands @19 :Map(Text, Data);
  wallTimeNanos @20 :UInt64;  # ns since 1970
  gitCommitDate @21 :Text;
  bootlogId @22 :Text;
  gitSrcCommit @23 :Text;
  gitSrcCommitDate @24 :Text;

  struct ChffrAndroidExtra {
    allCameraCharacteristics @0 :Map(Text, Text);
  }

  struct PandaInfo {
    hasPanda @0 :Bool;
    dongleId @1 :Text;
    stVersion @2 :Text;
    espVersion @3 :Text;
  }

  enum DeviceType {
    unknown @0;
    neo @1;
    chffrAndroid @2;
    chffrIos @3;
    tici @4;
    pc @5;
    tizi @6;
    mici @7;
  }

  deprecated :group {
    gctx @1 :Text;
    androidBuildInfo @5 :Deprecated.AndroidBuildInfo;
    androidSensors @6 :List(Deprecated.AndroidSensor);
    chffrAndroidExtra @7 :ChffrAndroidExtra;
    iosBuildInfo @14 :Deprecated.IosBuildInfo;
  }
}

# Second and last message of a log segment: how it began and ended.
struct Sentinel @0xef0382d244f56e38 {
  type @0 :SentinelType;
  signal @1 :Int32;  # that ended the recording

  enum SentinelType {
    endOfSegment @0;
    endOfRoute @1;
    startOfSegment @2;
    startOfRoute @3;
  }
}

# What was left over from the last run of the device.
struct Boot @0xa12e8670927a2549 {
  wallTimeNanos @0 :UInt64;
  launchLog @3 :Text;
  pstore @4 :Map(Text, Data);
  commands @5 :Map(Text, Data);

  deprecated :group {
    lastKmsg @1 :Data;
    lastPmsg @2 :Data;
  }
}

# The wall clock at the time of this message.
struct Clocks @0xc95fb49a7bdc4618 {
  wallTimeNanos @3 :UInt64;  # ns since 1970

  deprecated :group {
    bootTimeNanos @0 :UInt64;
    monotonicNanos @1 :UInt64;
    monotonicRawNanos @2 :UInt64;
    modemUptimeMillis @4 :UInt64;
  }
}

# A line of the log of the operating system.
# Older name: AndroidLogEntry.
struct OperatingSystemLogEntry @0xe80b0d46b8b39dbd {
  id @0 :UInt8;
  ts @1 :UInt64;
  priority @2 :UInt8;
  pid @3 :Int32;
  tid @4 :Int32;
  tag @5 :Text;
  message @6 :Text;
}

# A list of keys with values.
struct Map @0xf8b13ce2183eb696(Key, Value) {
  entries @0 :List(Entry);

  struct Entry {
    key @0 :Key;
    value @1 :Value;
  }
}


# Connection to the car --------------------------------------------------------------------------

# One frame of a CAN bus.
struct CanData @0x8785009a964c7c59 {
  address @0 :UInt32;  # CAN id
  dat @2 :Data;
  src @3 :UInt8;  # number of the bus; +128 for frames sent by us

  deprecated :group {
    busTime @1 :UInt16;
  }
}

# State of the interface between device and car.
struct PandaState @0xa7649e2575e4591e {
  voltage @0 :UInt32;  # mV
  current @1 :UInt32;  # mA
  ignitionLine @2 :Bool;
  controlsAllowed @3 :Bool;
  rxBufferOverflow @7 :UInt32;
  txBufferOverflow @8 :UInt32;
  pandaType @10 :PandaType;
  ignitionCan @13 :Bool;
  safetyModel @14 :Car.CarParams.SafetyModel;
  faultStatus @15 :FaultStatus;
  powerSaveEnabled @16 :Bool;
  uptime @17 :UInt32;  # s
  faults @18 :List(FaultType);
  safetyRxInvalid @19 :UInt32;
  harnessStatus @21 :HarnessStatus;
  heartbeatLost @22 :Bool;
  alternativeExperience @23 :Int16;
  safetyTxBlocked @24 :UInt32;
  interruptLoad @25 :Float32;
  safetyParam @27 :UInt16;
  fanPower @28 :UInt8;
  canState0 @29 :PandaCanState;
  canState1 @30 :PandaCanState;
  canState2 @31 :PandaCanState;
  safetyRxChecksInvalid @32 :Bool;
  spiErrorCount @33 :UInt16;
  sbu1Voltage @35 :Float32;
  sbu2Voltage @36 :Float32;
  soundOutputLevel @37 :UInt16;
  controlsAllowedRESERVED1 @38 :Bool;
  controlsAllowedRESERVED2 @39 :Bool;

  struct PandaCanState {
    busOff @0 :Bool;
    busOffCnt @1 :UInt32;
    errorWarning @2 :Bool;
    errorPassive @3 :Bool;
    lastError @4 :LecErrorCode;
    lastStoredError @5 :LecErrorCode;
    lastDataError @6 :LecErrorCode;
    lastDataStoredError @7 :LecErrorCode;
    receiveErrorCnt @8 :UInt8;
    transmitErrorCnt @9 :UInt8;
    totalErrorCnt @10 :UInt32;
    totalTxLostCnt @11 :UInt32;
    totalRxLostCnt @12 :UInt32;
    totalTxCnt @13 :UInt32;
    totalRxCnt @14 :UInt32;
    totalFwdCnt @15 :UInt32;
    canSpeed @16 :UInt16;
    canDataSpeed @17 :UInt16;
    canfdEnabled @18 :Bool;
    brsEnabled @19 :Bool;
    canfdNonIso @20 :Bool;
    irq0CallRate @21 :UInt32;
    irq1CallRate @22 :UInt32;
    irq2CallRate @23 :UInt32;
    canCoreResetCnt @24 :UInt32;

    enum LecErrorCode {
      noError @0;
      stuffError @1;
      formError @2;
      ackError @3;
      bit1Error @4;
      bit0Error @5;
      crcError @6;
      noChange @7;
    }
  }

  enum PandaType @0x8a58adf93e5b3751 {
    unknown @0;
    whitePanda @1;
    greyPanda @2;
    blackPanda @3;
    pedal @4;
    uno @5;
    dos @6;
    redPanda @7;
    redPandaV2 @8;
    tres @9;
    cuatro @10;
  }

  enum FaultStatus {
    none @0;
    faultTemp @1;
    faultPerm @2;
  }

  enum FaultType {
    relayMalfunction @0;
    unusedInterruptHandled @1;
    interruptRateCan1 @2;
    interruptRateCan2 @3;
    interruptRateCan3 @4;
    interruptRateTach @5;
    interruptRateGmlanDEPRECATED @6;
    interruptRateInterrupts @7;
    interruptRateSpiDma @8;
    interruptRateSpiCs @9;
    interruptRateUart1 @10;
    interruptRateUart2 @11;
    interruptRateUart3 @12;
    interruptRateUart5 @13;
    interruptRateUartDma @14;
    interruptRateUsb @15;
    interruptRateTim1 @16;
    interruptRateTim3 @17;
    registerDivergent @18;
    interruptRateKlineInit @19;
    interruptRateClockSource @20;
    interruptRateTick @21;
    interruptRateExti @22;
    interruptRateSpi @23;
    interruptRateUart7 @24;
    sirenMalfunction @25;
    heartbeatLoopWatchdog @26;
  }

  enum HarnessStatus {
    notConnected @0;
    normal @1;
    flipped @2;
  }

  deprecated :group {
    gasInterceptorDetected @4 :Bool;
    startedSignalDetected @5 :Bool;
    hasGps @6 :Bool;
    gmlanSendErrs @9 :UInt32;
    fanSpeedRpm @11 :UInt16;
    usbPowerMode @12 :Deprecated.UsbPowerModeDEPRECATED;
    safetyParam @20 :Int16;
    safetyParam2 @26 :UInt32;
    fanStallCount @34 :UInt8;
  }
}

# Power supply and fan.
struct PeripheralState @0xceb8f49734857a88 {
  pandaType @0 :PandaState.PandaType;
  voltage @1 :UInt32;  # mV
  current @2 :UInt32;  # mA
  fanSpeedRpm @3 :UInt16;

  deprecated :group {
    usbPowerMode @4 :Deprecated.UsbPowerModeDEPRECATED;
  }
}


# Device -----------------------------------------------------------------------------------------

# Health of the device.
struct DeviceState @0xa4d8b5af2aa492eb {
  freeSpacePercent @7 :Float32;
  fanSpeedPercentDesired @10 :UInt16;  # percent
  started @11 :Bool;  # driving
  startedMonoTime @13 :UInt64;  # ns
  thermalStatus @14 :ThermalStatus;
  memoryUsagePercent @19 :Int8;  # percent
  networkType @22 :NetworkType;
  offroadPowerUsageUwh @23 :UInt32;  # uWh
  networkStrength @24 :NetworkStrength;
  carBatteryCapacityUwh @25 :UInt32;  # uWh
  cpuTempC @26 :List(Float32);
  gpuTempC @27 :List(Float32);
  memoryTempC @28 :Float32;
  networkInfo @31 :NetworkInfo;
  lastAthenaPingTime @32 :UInt64;
  gpuUsagePercent @33 :Int8;
  cpuUsagePercent @34 :List(Int8);
  modemTempC @36 :List(Float32);
  screenBrightnessPercent @37 :Int8;
  thermalZones @38 :List(ThermalZone);
  pmicTempC @39 :List(Float32);
  powerDrawW @40 :Float32;
  networkMetered @41 :Bool;
  somPowerDrawW @42 :Float32;
  networkStats @43 :NetworkStats;
  maxTempC @44 :Float32;  # degrees C, hottest part
  deviceType @45 :InitData.DeviceType;
  intakeTempC @46 :Float32;
  exhaustTempC @47 :Float32;
  gnssTempC @48 :Float32;
  dspTempC @49 :Float32;
  bottomSocTempC @50 :Float32;
  chestnutPresent @51 :Bool;
  usbState @52 :UsbState;

  struct NetworkInfo {
    technology @0 :Text;
    operator @1 :Text;
    band @2 :Text;
    channel @3 :UInt16;
    extra @4 :Text;
    state @5 :Text;
  }

  struct ThermalZone {
    name @0 :Text;
    temp @1 :Float32;
  }

  struct NetworkStats {
    wwanTx @0 :Int64;
    wwanRx @1 :Int64;
  }

  enum ThermalStatus {
    ok @0;
    warmDEPRECATED @1;
    overheated @2;
    critical @3;
  }

  enum NetworkType {
    none @0;
    wifi @1;
    cell2G @2;
    cell3G @3;
    cell4G @4;
    cell5G @5;
    ethernet @6;
  }

  enum NetworkStrength {
    unknown @0;
    poor @1;
    moderate @2;
    good @3;
    great @4;
  }

  deprecated :group {
    cpu0 @0 :UInt16;
    cpu1 @1 :UInt16;
    cpu2 @2 :UInt16;
    cpu3 @3 :UInt16;
    mem @4 :UInt16;
    gpu @5 :UInt16;
    bat @6 :UInt32;
    batteryPercent @8 :Int16;
    batteryStatus @9 :Text;
    usbOnline @12 :Bool;
    batteryCurrent @15 :Int32;
    batteryVoltage @16 :Int32;
    chargingError @17 :Bool;
    chargingDisabled @18 :Bool;
    cpuUsagePercent @20 :Int8;
    pa0 @21 :UInt16;
    batteryTempC @29 :Float32;
    ambientTempC @30 :Float32;
    nvmeTempC @35 :List(Float32);
  }
}

# Devices on the USB buses.
struct UsbState @0x8b644b0be77bac9f {
  devices @0 :List(Device);

  struct Device {
    busnum @0 :UInt8;
    devnum @1 :UInt8;
    vendorId @2 :UInt16;
    productId @3 :UInt16;
    speedMbps @4 :UInt16;
    product @5 :Text;
    manufacturer @6 :Text;
    linkErrorCount @7 :UInt16;
    usb3Lane @8 :Usb3Lane;

    enum Usb3Lane {
      unknown @0;
      a @1;
      b @2;
    }
  }
}

# State of an external graphics processor.
struct ChestnutState @0x8fd70f1cb19dc3aa {
  tempC @0 :Float32;
  memoryTempC @1 :Float32;
  powerDrawW @2 :Float32;
  powerLimitW @3 :Float32;
  gpuUsagePercent @4 :UInt8;
  gpuClockMhz @5 :UInt16;
  fanSpeedRpm @6 :UInt16;
  pcieLtssm @7 :UInt8;
  supplyVoltage @8 :UInt16;
  supplyCurrent @9 :Int16;
}

# Which processes run and which should.
struct ManagerState @0xcf7154b31a69635b {
  processes @0 :List(ProcessState);

  struct ProcessState {
    name @0 :Text;
    pid @1 :Int32;
    running @2 :Bool;
    exitCode @3 :Int32;
    shouldBeRunning @4 :Bool;
  }
}

# Load of the processors and of every process.
struct ProcLog @0xaf85387b3f681406 {
  cpuTimes @0 :List(CPUTimes);
  mem @1 :Mem;
  procs @2 :List(Process);

  struct CPUTimes {
    cpuNum @0 :Int64;
    user @1 :Float32;
    nice @2 :Float32;
    system @3 :Float32;
    idle @4 :Float32;
    iowait @5 :Float32;
    irq @6 :Float32;
    softirq @7 :Float32;
  }

  struct Mem {
    total @0 :UInt64;
    free @1 :UInt64;
    available @2 :UInt64;
    buffers @3 :UInt64;
    cached @4 :UInt64;
    active @5 :UInt64;
    inactive @6 :UInt64;
    shared @7 :UInt64;
  }

  struct Process {
    pid @0 :Int32;
    name @1 :Text;
    state @2 :UInt8;
    ppid @3 :Int32;
    cpuUser @4 :Float32;
    cpuSystem @5 :Float32;
    cpuChildrenUser @6 :Float32;
    cpuChildrenSystem @7 :Float32;
    priority @8 :Int64;
    nice @9 :Int32;
    numThreads @10 :Int32;
    startTime @11 :Float64;
    memVms @12 :UInt64;
    memRss @13 :UInt64;
    processor @14 :Int32;
    cmdline @15 :List(Text);
    exe @16 :Text;
    memPss @17 :UInt64;
    memPssAnon @18 :UInt64;
    memPssShmem @19 :UInt64;
  }
}


# Sensors and positioning ------------------------------------------------------------------------

# One measurement of a sensor.
struct SensorEventData @0xa2b29a69d44529a1 {
  timestamp @3 :Int64;  # ns
  source @8 :SensorSource;

  union {
    acceleration @4 :SensorVec;
    magnetic @5 :SensorVec;
    orientation @6 :SensorVec;
    gyro @7 :SensorVec;
    pressure @9 :SensorVec;
    magneticUncalibrated @11 :SensorVec;
    gyroUncalibrated @12 :SensorVec;
    proximity @13 :Float32;
    light @14 :Float32;
    temperature @15 :Float32;
  }

  struct SensorVec {
    v @0 :List(Float32);

    deprecated :group {
      status @1 :Int8;
    }
  }

  enum SensorSource {
    android @0;
    iOS @1;
    fiber @2;
    velodyne @3;
    bno055 @4;
    lsm6ds3 @5;
    bmp280 @6;
    mmc3416x @7;
    bmx055 @8;
    rpr0521 @9;
    lsm6ds3trc @10;
    mmc5603nj @11;
  }

  deprecated :group {
    version @0 :Int32;
    sensor @1 :Int32;
    type @2 :Int32;
    uncalibrated @10 :Bool;
  }
}

# A position fix.
struct GpsLocationData @0xe946524859add50e {
  flags @0 :UInt16;
  latitude @1 :Float64;  # degrees
  longitude @2 :Float64;  # degrees
  altitude @3 :Float64;  # m above the ellipsoid
  speed @4 :Float32;  # m/s
  bearingDeg @5 :Float32;  # degrees from north
  horizontalAccuracy @6 :Float32;  # m
  unixTimestampMillis @7 :Int64;  # ms since 1970
  source @8 :SensorSource;
  vNED @9 :List(Float32);  # m/s
  verticalAccuracy @10 :Float32;  # m
  bearingAccuracyDeg @11 :Float32;  # degrees
  speedAccuracy @12 :Float32;  # m/s
  hasFix @13 :Bool;
  satelliteCount @14 :Int8;

  enum SensorSource {
    android @0;
    iOS @1;
    car @2;
    velodyne @3;
    fusion @4;
    external @5;
    ublox @6;
    trimble @7;
    qcomdiag @8;
    unicore @9;
  }
}

# Raw reports of the modem's satellite receiver.
struct QcomGnss @0xde94674b07ae51c1 {
  logTs @0 :UInt64;

  union {
    measurementReport @1 :MeasurementReport;
    clockReport @2 :ClockReport;
    drMeasurementReport @3 :DrMeasurementReport;
    drSvPoly @4 :DrSvPolyReport;
    rawLog @5 :Data;
  }

  struct MeasurementReport {
    source @0 :MeasurementSource;
    fCount @1 :UInt32;
    gpsWeek @2 :UInt16;
    glonassCycleNumber @3 :UInt8;
    glonassNumberOfDays @4 :UInt16;
    milliseconds @5 :UInt32;
    timeBias @6 :Float32;
    clockTimeUncertainty @7 :Float32;
    clockFrequencyBias @8 :Float32;
    clockFrequencyUncertainty @9 :Float32;
    sv @10 :List(SV);

    struct SV {
      svId @0 :UInt8;
      glonassFrequencyIndex @1 :Int8;
      observationState @2 :SVObservationState;
      observations @3 :UInt8;
      goodObservations @4 :UInt8;
      gpsParityErrorCount @5 :UInt16;
      glonassHemmingErrorCount @6 :UInt8;
      filterStages @7 :UInt8;
      carrierNoise @8 :UInt16;
      latency @9 :Int16;
      predetectInterval @10 :UInt8;
      postdetections @11 :UInt16;
      unfilteredMeasurementIntegral @12 :UInt32;
      unfilteredMeasurementFraction @13 :Float32;
      unfilteredTimeUncertainty @14 :Float32;
      unfilteredSpeed @15 :Float32;
      unfilteredSpeedUncertainty @16 :Float32;
      measurementStatus @17 :MeasurementStatus;
      multipathEstimate @18 :UInt32;
      azimuth @19 :Float32;
      elevation @20 :Float32;
      carrierPhaseCyclesIntegral @21 :Int32;
      carrierPhaseCyclesFraction @22 :UInt16;
      fineSpeed @23 :Float32;
      fineSpeedUncertainty @24 :Float32;
      cycleSlipCount @25 :UInt8;
    }
  }

  struct MeasurementStatus @0xe501010e1bcae83b {
    subMillisecondIsValid @0 :Bool;
    subBitTimeIsKnown @1 :Bool;
    satelliteTimeIsKnown @2 :Bool;
    bitEdgeConfirmedFromSignal @3 :Bool;
    measuredVelocity @4 :Bool;
    fineOrCoarseVelocity @5 :Bool;
    lockPointValid @6 :Bool;
    lockPointPositive @7 :Bool;
    lastUpdateFromDifference @8 :Bool;
    lastUpdateFromVelocityDifference @9 :Bool;
    strongIndicationOfCrossCorelation @10 :Bool;
    tentativeMeasurement @11 :Bool;
    measurementNotUsable @12 :Bool;
    sirCheckIsNeeded @13 :Bool;
    probationMode @14 :Bool;
    glonassMeanderBitEdgeValid @15 :Bool;
    glonassTimeMarkValid @16 :Bool;
    gpsRoundRobinRxDiversity @17 :Bool;
    gpsRxDiversity @18 :Bool;
    gpsLowBandwidthRxDiversityCombined @19 :Bool;
    gpsHighBandwidthNu4 @20 :Bool;
    gpsHighBandwidthNu8 @21 :Bool;
    gpsHighBandwidthUniform @22 :Bool;
    multipathIndicator @23 :Bool;
    imdJammingIndicator @24 :Bool;
    lteB13TxJammingIndicator @25 :Bool;
    freshMeasurementIndicator @26 :Bool;
    multipathEstimateIsValid @27 :Bool;
    directionIsValid @28 :Bool;
  }

  struct ClockReport {
    hasFCount @0 :Bool;
    fCount @1 :UInt32;
    hasGpsWeek @2 :Bool;
    gpsWeek @3 :UInt16;
    hasGpsMilliseconds @4 :Bool;
    gpsMilliseconds @5 :UInt32;
    gpsTimeBias @6 :Float32;
    gpsClockTimeUncertainty @7 :Float32;
    gpsClockSource @8 :UInt8;
    hasGlonassYear @9 :Bool;
    glonassYear @10 :UInt8;
    hasGlonassDay @11 :Bool;
    glonassDay @12 :UInt16;
    hasGlonassMilliseconds @13 :Bool;
    glonassMilliseconds @14 :UInt32;
    glonassTimeBias @15 :Float32;
    glonassClockTimeUncertainty @16 :Float32;
    glonassClockSource @17 :UInt8;
    bdsWeek @18 :UInt16;
    bdsMilliseconds @19 :UInt32;
    bdsTimeBias @20 :Float32;
    bdsClockTimeUncertainty @21 :Float32;
    bdsClockSource @22 :UInt8;
    galWeek @23 :UInt16;
    galMilliseconds @24 :UInt32;
    galTimeBias @25 :Float32;
    galClockTimeUncertainty @26 :Float32;
    galClockSource @27 :UInt8;
    clockFrequencyBias @28 :Float32;
    clockFrequencyUncertainty @29 :Float32;
    frequencySource @30 :UInt8;
    gpsLeapSeconds @31 :UInt8;
    gpsLeapSecondsUncertainty @32 :UInt8;
    gpsLeapSecondsSource @33 :UInt8;
    gpsToGlonassTimeBiasMilliseconds @34 :Float32;
    gpsToGlonassTimeBiasMillisecondsUncertainty @35 :Float32;
    gpsToBdsTimeBiasMilliseconds @36 :Float32;
    gpsToBdsTimeBiasMillisecondsUncertainty @37 :Float32;
    bdsToGloTimeBiasMilliseconds @38 :Float32;
    bdsToGloTimeBiasMillisecondsUncertainty @39 :Float32;
    gpsToGalTimeBiasMilliseconds @40 :Float32;
    gpsToGalTimeBiasMillisecondsUncertainty @41 :Float32;
    galToGloTimeBiasMilliseconds @42 :Float32;
    galToGloTimeBiasMillisecondsUncertainty @43 :Float32;
    galToBdsTimeBiasMilliseconds @44 :Float32;
    galToBdsTimeBiasMillisecondsUncertainty @45 :Float32;
    hasRtcTime @46 :Bool;
    systemRtcTime @47 :UInt32;
    fCountOffset @48 :UInt32;
    lpmRtcCount @49 :UInt32;
    clockResets @50 :UInt32;
  }

  struct DrMeasurementReport {
    reason @0 :UInt8;
    seqNum @1 :UInt8;
    seqMax @2 :UInt8;
    rfLoss @3 :UInt16;
    systemRtcValid @4 :Bool;
    fCount @5 :UInt32;
    clockResets @6 :UInt32;
    systemRtcTime @7 :UInt64;
    gpsLeapSeconds @8 :UInt8;
    gpsLeapSecondsUncertainty @9 :UInt8;
    gpsToGlonassTimeBiasMilliseconds @10 :Float32;
    gpsToGlonassTimeBiasMillisecondsUncertainty @11 :Float32;
    gpsWeek @12 :UInt16;
    gpsMilliseconds @13 :UInt32;
    gpsTimeBiasMs @14 :UInt32;
    gpsClockTimeUncertaintyMs @15 :UInt32;
    gpsClockSource @16 :UInt8;
    glonassClockSource @17 :UInt8;
    glonassYear @18 :UInt8;
    glonassDay @19 :UInt16;
    glonassMilliseconds @20 :UInt32;
    glonassTimeBias @21 :Float32;
    glonassClockTimeUncertainty @22 :Float32;
    clockFrequencyBias @23 :Float32;
    clockFrequencyUncertainty @24 :Float32;
    frequencySource @25 :UInt8;
    source @26 :MeasurementSource;
    sv @27 :List(SV);

    struct SV {
      svId @0 :UInt8;
      glonassFrequencyIndex @1 :Int8;
      observationState @2 :SVObservationState;
      observations @3 :UInt8;
      goodObservations @4 :UInt8;
      filterStages @5 :UInt8;
      predetectInterval @6 :UInt8;
      cycleSlipCount @7 :UInt8;
      postdetections @8 :UInt16;
      measurementStatus @9 :MeasurementStatus;
      carrierNoise @10 :UInt16;
      rfLoss @11 :UInt16;
      latency @12 :Int16;
      filteredMeasurementFraction @13 :Float32;
      filteredMeasurementIntegral @14 :UInt32;
      filteredTimeUncertainty @15 :Float32;
      filteredSpeed @16 :Float32;
      filteredSpeedUncertainty @17 :Float32;
      unfilteredMeasurementFraction @18 :Float32;
      unfilteredMeasurementIntegral @19 :UInt32;
      unfilteredTimeUncertainty @20 :Float32;
      unfilteredSpeed @21 :Float32;
      unfilteredSpeedUncertainty @22 :Float32;
      multipathEstimate @23 :UInt32;
      azimuth @24 :Float32;
      elevation @25 :Float32;
      dopplerAcceleration @26 :Float32;
      fineSpeed @27 :Float32;
      fineSpeedUncertainty @28 :Float32;
      carrierPhase @29 :Float64;
      fCount @30 :UInt32;
      parityErrorCount @31 :UInt16;
      goodParity @32 :Bool;
    }
  }

  struct DrSvPolyReport {
    svId @0 :UInt16;
    frequencyIndex @1 :Int8;
    hasPosition @2 :Bool;
    hasIono @3 :Bool;
    hasTropo @4 :Bool;
    hasElevation @5 :Bool;
    polyFromXtra @6 :Bool;
    hasSbasIono @7 :Bool;
    iode @8 :UInt16;
    t0 @9 :Float64;
    xyz0 @10 :List(Float64);
    xyzN @11 :List(Float64);
    other @12 :List(Float32);
    positionUncertainty @13 :Float32;
    ionoDelay @14 :Float32;
    ionoDot @15 :Float32;
    sbasIonoDelay @16 :Float32;
    sbasIonoDot @17 :Float32;
    tropoDelay @18 :Float32;
    elevation @19 :Float32;
    elevationDot @20 :Float32;
    elevationUncertainty @21 :Float32;
    velocityCoeff @22 :List(Float64);
    gpsWeek @23 :UInt16;
    gpsTow @24 :Float64;
  }

  enum MeasurementSource @0xd71a12b6faada7ee {
    gps @0;
    glonass @1;
    beidou @2;
    unknown3 @3;
    unknown4 @4;
    unknown5 @5;
    sbas @6;
  }

  enum SVObservationState @0xe81e829a0d6c83e9 {
    idle @0;
    search @1;
    searchVerify @2;
    bitEdge @3;
    trackVerify @4;
    track @5;
    restart @6;
    dpo @7;
    glo10msBe @8;
    glo10msAt @9;
  }
}

# Raw reports of a u-blox satellite receiver.
struct UbloxGnss @0x85dddd7ce6cefa5d {
  union {
    measurementReport @0 :MeasurementReport;
    ephemeris @1 :Ephemeris;
    ionoData @2 :IonoData;
    hwStatus @3 :HwStatus;
    hwStatus2 @4 :HwStatus2;
    glonassEphemeris @5 :GlonassEphemeris;
    satReport @6 :SatReport;
  }

  struct MeasurementReport {
    rcvTow @0 :Float64;
    gpsWeek @1 :UInt16;
    leapSeconds @2 :UInt16;
    receiverStatus @3 :ReceiverStatus;
    numMeas @4 :UInt8;
    measurements @5 :List(Measurement);

    struct ReceiverStatus {
      leapSecValid @0 :Bool;
      clkReset @1 :Bool;
    }

    struct Measurement {
      svId @0 :UInt8;
      trackingStatus @1 :TrackingStatus;
      pseudorange @2 :Float64;
      carrierCycles @3 :Float64;
      doppler @4 :Float32;
      gnssId @5 :UInt8;
      glonassFrequencyIndex @6 :UInt8;
      locktime @7 :UInt16;
      cno @8 :UInt8;
      pseudorangeStdev @9 :Float32;
      carrierPhaseStdev @10 :Float32;
      dopplerStdev @11 :Float32;
      sigId @12 :UInt8;

      struct TrackingStatus {
        pseudorangeValid @0 :Bool;
        carrierPhaseValid @1 :Bool;
        halfCycleValid @2 :Bool;
        halfCycleSubtracted @3 :Bool;
      }
    }
  }

  struct Ephemeris {
    svId @0 :UInt16;
    year @1 :UInt16;
    month @2 :UInt16;
    day @3 :UInt16;
    hour @4 :UInt16;
    minute @5 :UInt16;
    second @6 :Float32;
    af0 @7 :Float64;
    af1 @8 :Float64;
    af2 @9 :Float64;
    iode @10 :Float64;
    crs @11 :Float64;
    deltaN @12 :Float64;
    m0 @13 :Float64;
    cuc @14 :Float64;
    ecc @15 :Float64;
    cus @16 :Float64;
    a @17 :Float64;
    toe @18 :Float64;
    cic @19 :Float64;
    omega0 @20 :Float64;
    cis @21 :Float64;
    i0 @22 :Float64;
    crc @23 :Float64;
    omega @24 :Float64;
    omegaDot @25 :Float64;
    iDot @26 :Float64;
    codesL2 @27 :Float64;
    l2 @29 :Float64;
    svAcc @30 :Float64;
    svHealth @31 :Float64;
    tgd @32 :Float64;
    iodc @33 :Float64;
    transmissionTime @34 :Float64;
    fitInterval @35 :Float64;
    toc @36 :Float64;
    ionoCoeffsValid @37 :Bool;
    ionoAlpha @38 :List(Float64);
    ionoBeta @39 :List(Float64);
    towCount @40 :UInt32;
    toeWeek @41 :UInt16;
    tocWeek @42 :UInt16;

    deprecated :group {
      gpsWeek @28 :Float64;
    }
  }

  struct IonoData {
    svHealth @0 :UInt32;
    tow @1 :Float64;
    gpsWeek @2 :Float64;
    ionoAlpha @3 :List(Float64);
    ionoBeta @4 :List(Float64);
    healthValid @5 :Bool;
    ionoCoeffsValid @6 :Bool;
  }

  struct HwStatus {
    noisePerMS @0 :UInt16;
    agcCnt @1 :UInt16;
    aStatus @2 :AntennaSupervisorState;
    aPower @3 :AntennaPowerStatus;
    jamInd @4 :UInt8;
    flags @5 :UInt8;

    enum AntennaSupervisorState {
      init @0;
      dontknow @1;
      ok @2;
      short @3;
      open @4;
    }

    enum AntennaPowerStatus {
      off @0;
      on @1;
      dontknow @2;
    }
  }

  struct HwStatus2 {
    ofsI @0 :Int8;
    magI @1 :UInt8;
    ofsQ @2 :Int8;
    magQ @3 :UInt8;
    cfgSource @4 :ConfigSource;
    lowLevCfg @5 :UInt32;
    postStatus @6 :UInt32;

    enum ConfigSource {
      undefined @0;
      rom @1;
      otp @2;
      configpins @3;
      flash @4;
    }
  }

  struct GlonassEphemeris {
    svId @0 :UInt16;
    year @1 :UInt16;
    dayInYear @2 :UInt16;
    hour @3 :UInt16;
    minute @4 :UInt16;
    second @5 :Float32;
    x @6 :Float64;
    xVel @7 :Float64;
    xAccel @8 :Float64;
    y @9 :Float64;
    yVel @10 :Float64;
    yAccel @11 :Float64;
    z @12 :Float64;
    zVel @13 :Float64;
    zAccel @14 :Float64;
    svType @15 :UInt8;
    svURA @16 :Float32;
    age @17 :UInt8;
    svHealth @18 :UInt8;
    tb @20 :UInt16;
    tauN @21 :Float64;
    deltaTauN @22 :Float64;
    gammaN @23 :Float64;
    p1 @24 :UInt8;
    p2 @25 :UInt8;
    p3 @26 :UInt8;
    p4 @27 :UInt8;
    n4 @29 :UInt8;
    nt @30 :UInt16;
    freqNum @31 :Int16;
    tkSeconds @32 :UInt32;

    deprecated :group {
      tk @19 :UInt16;
      freqNum @28 :UInt32;
    }
  }

  struct SatReport {
    iTow @0 :UInt32;
    svs @1 :List(SatInfo);

    struct SatInfo {
      svId @0 :UInt8;
      gnssId @1 :UInt8;
      flagsBitfield @2 :UInt32;
      cno @3 :UInt8;
      elevationDeg @4 :Int8;
      azimuthDeg @5 :Int16;
      pseudorangeResidual @6 :Float32;
    }
  }
}


# Sound, screen, people --------------------------------------------------------------------------

# How loud it is in the car.
# Older name: Microphone.
struct SoundPressure @0xdc24138990726023 {
  soundPressure @0 :Float32;
  soundPressureWeightedDb @1 :Float32;  # dB, A-weighted
  soundPressureWeighted @3 :Float32;

  deprecated :group {
    filteredSoundPressureWeightedDb @2 :Float32;
  }
}

# Sound from the microphone.
struct AudioData @0xa4e671db37b8ade5 {
  data @0 :Data;  # 16-bit samples
  sampleRate @1 :UInt32;  # Hz
}

# The driver asked to keep this moment.
# Older name: UserFlag.
struct UserBookmark @0xfe346a9de48d9b50 {}

# An event of the touch screen.
struct Touch @0x8795cd2944faeab6 {
  sec @0 :Int64;
  usec @1 :Int64;
  type @2 :UInt8;
  code @3 :Int32;
  value @4 :Int32;
}

struct Joystick @0xe42401658e2715e2 {
  axes @0 :List(Float32);
  buttons @1 :List(Bool);
}

struct UIDebug @0xfe35ad896ffaeacf {
  cpuTimeMillis @0 :Float32;
  frameTimeMillis @1 :Float32;
}

struct DebugAlert @0xf585f6ba1d678656 {
  alertText1 @0 :Text;
  alertText2 @1 :Text;
}


# No longer sent ---------------------------------------------------------------------------------

struct GPSNMEAData @0x9d291d7813ba4a88 {
  timestamp @0 :Int64;
  localWallTime @1 :UInt64;
  nmea @2 :Text;
}

struct LiveMapDataDEPRECATED @0x943e268f93f711a6 {
  speedLimitValid @0 :Bool;
  speedLimit @1 :Float32;
  curvatureValid @2 :Bool;
  curvature @3 :Float32;
  wayId @4 :UInt64;
  roadX @5 :List(Float32);
  roadY @6 :List(Float32);
  lastGps @7 :GpsLocationData;
  roadCurvatureX @8 :List(Float32);
  roadCurvature @9 :List(Float32);
  distToTurn @10 :Float32;
  mapValid @11 :Bool;
  speedAdvisoryValid @12 :Bool;
  speedAdvisory @13 :Float32;
  speedLimitAheadValid @14 :Bool;
  speedLimitAhead @15 :Float32;
  speedLimitAheadDistance @16 :Float32;
}

struct LateralPlan @0xe1e9318e2ae8b51e {
  mpcSolutionValid @9 :Bool;
  desire @17 :Desire;
  laneChangeState @18 :LaneChangeState;
  laneChangeDirection @19 :LaneChangeDirection;
  dPathPoints @20 :List(Float32);
  psis @26 :List(Float32);
  curvatures @27 :List(Float32);
  curvatureRates @28 :List(Float32);
  useLaneLines @29 :Bool;
  solverExecutionTime @30 :Float32;
  modelMonoTime @31 :UInt64;
  solverCost @32 :Float32;
  solverState @33 :SolverState;

  struct SolverState {
    x @0 :List(List(Float32));
    u @1 :List(Float32);
  }

  deprecated :group {
    laneWidth @0 :Float32;
    dPoly @1 :List(Float32);
    cPoly @2 :List(Float32);
    cProb @3 :Float32;
    lPoly @4 :List(Float32);
    lProb @5 :Float32;
    rPoly @6 :List(Float32);
    rProb @7 :Float32;
    steeringAngleDeg @8 :Float32;
    paramsValid @10 :Bool;
    angleOffsetDeg @11 :Float32;
    modelValid @12 :Bool;
    steeringRateDeg @13 :Float32;
    sensorValid @14 :Bool;
    commIssue @15 :Bool;
    posenetValid @16 :Bool;
    dProb @21 :Float32;
    curvature @22 :Float32;
    curvatureRate @23 :Float32;
    rawCurvature @24 :Float32;
    rawCurvatureRate @25 :Float32;
  }
}

# Older name: DriverMonitoringState.
struct DriverMonitoringStateDEPRECATED @0xb83cda094a1da284 {
  faceDetected @1 :Bool;
  isDistracted @2 :Bool;
  awarenessStatus @3 :Float32;
  isRHD @4 :Bool;
  posePitchOffset @6 :Float32;
  posePitchValidCount @7 :UInt32;
  poseYawOffset @8 :Float32;
  poseYawValidCount @9 :UInt32;
  stepChange @10 :Float32;
  awarenessActive @11 :Float32;
  awarenessPassive @12 :Float32;
  isLowStd @13 :Bool;
  hiStdCount @14 :UInt32;
  isActiveMode @16 :Bool;
  distractedType @17 :UInt32;
  events @18 :List(OnroadEvent);
  uncertainCount @19 :UInt32;

  deprecated :group {
    events @0 :List(Car.OnroadEventDEPRECATED);
    rhdChecked @5 :Bool;
    isPreview @15 :Bool;
    phoneProbOffset @20 :Float32;
    phoneProbValidCount @21 :UInt32;
  }
}

struct LiveLocationKalman @0xebc5703d1ee7c129 {
  positionECEF @0 :Measurement;
  positionGeodetic @1 :Measurement;
  velocityECEF @2 :Measurement;
  velocityNED @3 :Measurement;
  velocityDevice @4 :Measurement;
  accelerationDevice @5 :Measurement;
  orientationECEF @6 :Measurement;
  orientationNED @7 :Measurement;
  angularVelocityDevice @8 :Measurement;
  calibratedOrientationNED @9 :Measurement;
  velocityCalibrated @10 :Measurement;
  accelerationCalibrated @11 :Measurement;
  angularVelocityCalibrated @12 :Measurement;
  gpsWeek @13 :Int32;
  gpsTimeOfWeek @14 :Float64;
  status @15 :Status;
  unixTimestampMillis @16 :Int64;
  inputsOK @17 :Bool = true;
  posenetOK @18 :Bool = true;
  gpsOK @19 :Bool = true;
  calibratedOrientationECEF @20 :Measurement;
  sensorsOK @21 :Bool = true;
  deviceStable @22 :Bool = true;
  timeSinceReset @23 :Float64;
  excessiveResets @24 :Bool;
  timeToFirstFix @25 :Float32;
  filterState @26 :Measurement;

  struct Measurement {
    value @0 :List(Float64);
    std @1 :List(Float64);
    valid @2 :Bool;
  }

  enum Status {
    uninitialized @0;
    uncalibrated @1;
    valid @2;
  }
}

struct UploaderState @0xde266b39b76b461e {
  immediateQueueSize @0 :UInt32;
  immediateQueueCount @1 :UInt32;
  rawQueueSize @2 :UInt32;
  rawQueueCount @3 :UInt32;
  lastTime @4 :Float32;
  lastSpeed @5 :Float32;
  lastFilename @6 :Text;
}

struct NavInstruction @0xc18216b27f8602af {
  maneuverPrimaryText @0 :Text;
  maneuverSecondaryText @1 :Text;
  maneuverDistance @2 :Float32;
  maneuverType @3 :Text;
  maneuverModifier @4 :Text;
  distanceRemaining @5 :Float32;
  timeRemaining @6 :Float32;
  timeRemainingTypical @7 :Float32;
  lanes @8 :List(Lane);
  showFull @9 :Bool;
  speedLimit @10 :Float32;
  speedLimitSign @11 :SpeedLimitSign;
  allManeuvers @12 :List(Maneuver);

  struct Lane {
    directions @0 :List(Direction);
    active @1 :Bool;
    activeDirection @2 :Direction;
  }

  struct Maneuver {
    distance @0 :Float32;
    type @1 :Text;
    modifier @2 :Text;
  }

  enum Direction {
    none @0;
    left @1;
    right @2;
    straight @3;
    slightLeft @4;
    slightRight @5;
  }

  enum SpeedLimitSign {
    mutcd @0;
    vienna @1;
  }
}

struct NavRoute @0xa61452f6440d97d3 {
  coordinates @0 :List(Coordinate);

  struct Coordinate {
    latitude @0 :Float32;
    longitude @1 :Float32;
  }
}

struct GnssMeasurements @0xafd47016570e9d09 {
  measTime @0 :UInt64;
  gpsWeek @1 :Int16;
  gpsTimeOfWeek @2 :Float64;
  correctedMeasurements @3 :List(CorrectedMeasurement);
  kalmanPositionECEF @4 :LiveLocationKalman.Measurement;
  kalmanVelocityECEF @5 :LiveLocationKalman.Measurement;
  positionECEF @6 :LiveLocationKalman.Measurement;
  velocityECEF @7 :LiveLocationKalman.Measurement;
  timeToFirstFix @8 :Float32;
  ephemerisStatuses @9 :List(EphemerisStatus);

  struct CorrectedMeasurement {
    constellationId @0 :ConstellationId;
    svId @1 :UInt8;
    glonassFrequency @2 :Int8;
    pseudorange @3 :Float64;
    pseudorangeStd @4 :Float64;
    pseudorangeRate @5 :Float64;
    pseudorangeRateStd @6 :Float64;
    satPos @7 :List(Float64);
    satVel @8 :List(Float64);

    deprecated :group {
      ephemerisSource @9 :EphemerisSourceDEPRECATED;
    }
  }

  struct EphemerisStatus {
    constellationId @0 :ConstellationId;
    svId @1 :UInt8;
    type @2 :EphemerisType;
    source @3 :EphemerisSource;
    gpsWeek @4 :UInt16;
    tow @5 :Float64;
  }

  enum ConstellationId {
    gps @0;
    sbas @1;
    galileo @2;
    beidou @3;
    imes @4;
    qznss @5;
    glonass @6;
  }

  enum EphemerisType {
    nav @0;
    nasaUltraRapid @1;
    glonassIacUltraRapid @2;
    qcom @3;
  }

  enum EphemerisSource {
    gnssChip @0;
    internet @1;
    cache @2;
    unknown @3;
  }

  struct EphemerisSourceDEPRECATED {
    type @0 :EphemerisType;
    gpsWeek @1 :Int16;
    gpsTimeOfWeek @2 :Int32;
  }
}

struct MapRenderState @0xa158dd2a4cfaa81b {
  locationMonoTime @0 :UInt64;
  renderTime @1 :Float32;
  frameId @2 :UInt32;
}

struct UiPlan @0xfc0c9bb05e3927c1 {
  position @0 :XYZTData;
  accel @1 :List(Float32);
  frameId @2 :UInt32;
}
